"""A package is tried before it comes into use: loaded in a process of its own and shown a blank image or volume.

`python -m radnode.detect.trial FOLDER MODELS DEVICE THREADS` is that process. What a package does there harms nobody:
one that hangs is ended, one that kills its process has killed no worker.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from radnode.detect.decoding import child_environment
from radnode.errors import PackageError
from radnode.settings import DetectSettings

_SAID = "refused: "


def try_package(folder: Path, models: Path, settings: DetectSettings) -> None:
    """Return when the package in `folder` loads here and answers; at once where there is no torch to try it with.

    Raises:
        PackageError: it does not.
    """
    if find_spec("torch") is None:
        return
    how = [str(folder), str(models), settings.device, str(settings.threads)]
    command = [sys.executable, "-P", "-m", "radnode.detect.trial", *how]
    try:
        done = subprocess.run(  # noqa: S603 (our own module)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=settings.load_seconds,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"The package hung when it was tried; detect.load_seconds is {settings.load_seconds:g}."
        ) from error
    if done.returncode:
        said = [line.removeprefix(_SAID) for line in done.stdout.splitlines() if line.startswith(_SAID)]
        raise PackageError(said[0] if said else f"The package ended the process that tried it ({done.returncode}).")


def main(arguments: list[str]) -> int:
    """Load one package; say why it cannot be used."""
    from radnode.detect.analyser import load_detector  # noqa: PLC0415 (imports torch; who only tries does not)

    folder, models, device, threads = arguments
    try:
        load_detector(Path(folder), Path(models), device, int(threads))
    except PackageError as error:
        print(f"{_SAID}{error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
