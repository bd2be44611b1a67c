"""Load a torch.export program without unpickling anything."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

from radnode.errors import PackageError

if TYPE_CHECKING:
    import torch

MAX_TABLE_BYTES = 16 << 20


def load_program(content: bytes) -> torch.nn.Module:
    """Return the module of a `.pt2` archive, on the CPU.

    Raises:
        PackageError: it is no torch.export archive, holds anything pickled, or this torch cannot load it.
    """
    refuse_pickles(content)
    try:
        import torch  # noqa: PLC0415 (so that packages can be listed and checked where torch is missing)

        return torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # a foreign archive format; torch raises whatever its readers raise
        raise PackageError(f"The weights do not load with this torch: {type(error).__name__}.") from error


def place_program(content: bytes, device: str, threads: int) -> tuple[torch.nn.Module, str]:
    """Return the module of a `.pt2` archive on its device, and the name of that device.

    `device` is "auto" (CUDA when there), "cpu" or "cuda"; `threads` bounds torch's intra-op threads.

    Raises:
        PackageError: as `load_program`, or there is no torch here.
    """
    try:
        import torch  # noqa: PLC0415 (the room imports where torch is missing; a detector needs it)
    except ImportError as error:
        raise PackageError("This installation has no torch; install radnode[detect].") from error
    torch.set_num_threads(threads)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return load_program(content).to(chosen), chosen


def refuse_pickles(content: bytes) -> None:
    """Return when the archive is a PT2 archive whose weights and constants are all raw numbers.

    Raises:
        PackageError: it is not, or loading it would unpickle something.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            root = archive.namelist()[0].partition("/")[0]
            samples = any(item.file_size for item in archive.infolist() if "/data/sample_inputs/" in item.filename)
            tables = [name for name in names if name.endswith("_config.json")]
            entries = [entry for name in tables for entry in _table(archive, f"{root}/{name}")]
    except (zipfile.BadZipFile, ValueError, IndexError, KeyError, OSError) as error:
        raise PackageError("The weights are not a torch.export archive.") from error
    if not any(name.startswith("models/") and name.endswith(".json") for name in names):
        raise PackageError("The weights are not a torch.export archive.")
    pickled = [name for name in names if name.startswith(("data/aotinductor", "data/constants/custom_obj"))]
    if samples or pickled or any(entry.get("use_pickle") is not False for entry in entries):
        raise PackageError("The weights hold pickled objects, which are never loaded.")


def _table(archive: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    """Return the entries of one table of weights or constants."""
    if archive.getinfo(name).file_size > MAX_TABLE_BYTES:
        raise ValueError(f"{name} is too large")
    return list(json.loads(archive.read(name))["config"].values())
