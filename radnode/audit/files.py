"""Files that only grow: private modes, whole appends, fsync before anyone may rely on them.

The trail is a row of segments `trail-<number of its first entry, 12 digits>.jsonl`; their names, not their
dates, give the order, so that a clock that jumps back changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from radnode.durable import sync_folder
from radnode.errors import AuditError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_SEGMENT = re.compile(r"trail-(\d{12})\.jsonl")


def segment_name(first: int) -> str:
    """Return the name of the segment whose first entry has the number `first`."""
    return f"trail-{first:012d}.jsonl"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return the segments in order, each with the number its name gives to its first entry."""
    found = ((_SEGMENT.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def end_of_trail(folder: Path) -> tuple[int, int]:
    """Return the number of the last whole entry (0: there is none), and how many bytes of a torn one follow it."""
    found = segments(folder) if folder.is_dir() else []
    if not found:
        return 0, 0
    first, path = found[-1]
    data = path.read_bytes()
    return first + data.count(b"\n") - 1, len(data) - (data.rfind(b"\n") + 1)


def private_folder(folder: Path) -> None:
    """Make `folder` if need be, for its owner alone, and make its existence durable."""
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    sync_folder(folder.parent)


class AppendFile:
    """One file open for durable appends; an append is there as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        os.fchmod(self._handle, FILE_MODE)
        self.path = path
        self.length = os.fstat(self._handle).st_size
        if new:
            sync_folder(path.parent)

    def append(self, data: bytes) -> None:
        """Write `data` and fsync it. Raises AuditError when it could not; the file is then as before."""
        try:
            if os.fstat(self._handle).st_size != self.length:  # an earlier append failed and so did its undoing
                os.ftruncate(self._handle, self.length)
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self.length)
            raise AuditError(f"The audit trail could not be written: {error.strerror}.") from None
        self.length += len(data)

    def cut(self, length: int) -> None:
        """Drop what a crash left behind the first `length` bytes."""
        os.ftruncate(self._handle, length)
        os.fsync(self._handle)
        self.length = length

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
