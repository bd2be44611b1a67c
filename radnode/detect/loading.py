"""Models that hang while they are loaded: this process ends, and its successors do not walk into the same trap."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from radnode.errors import PackageError

STUCK = 70  # exit status of a worker whose detector hung (EX_SOFTWARE); the supervisor starts another
AGAIN_SECONDS = 600.0  # how long a package that hung is left alone


class Loading:
    """Watches the loading of packages; `folder` is where it is remembered, over the death of a process, which hung.

    No thread can be stopped, a process can: whoever hangs for `seconds` ends it.
    """

    def __init__(self, folder: Path, seconds: float, log: Any) -> None:
        self._folder = folder
        self._seconds = seconds
        self._log = log
        self._timer: threading.Timer | None = None
        self._mark: Path | None = None

    def begin(self, package: Path, seconds: float | None = None) -> None:
        """Say that the package in that folder, `<name>/<version>`, is being loaded from now on, until `end`.

        With `seconds` it is run, in the shadow, and may take that long.

        Raises:
            PackageError: it hung not long ago.
        """
        name = f"{package.parent.name} {package.name}"
        mark = self._folder / f"hung-{package.parent.name}-{package.name}"
        if mark.exists() and abs(time.time() - mark.stat().st_mtime) < AGAIN_SECONDS:
            raise PackageError(f"The model package {name} hung when it was loaded or run; it rests for ten minutes.")
        self._mark = mark
        self._timer = threading.Timer(seconds or self._seconds, self._stuck, (name, mark))
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Say that it is loaded, or does not load; it did not hang."""
        if self._timer is not None and self._mark is not None:
            self._timer.cancel()
            self._timer = None
            self._mark.unlink(missing_ok=True)

    def _stuck(self, name: str, mark: Path) -> None:
        try:
            mark.touch(mode=0o600)
        finally:
            self._log.critical("detector_stuck", model=name, exit=STUCK)
            os._exit(STUCK)
