"""Sealed objects as files: `objects/ab/cd/<object id>.sealed`, 0600 in folders of 0700.

Written to a temporary name beside the target, which holds the writer's process id; once whole it is renamed, the file
synced, then its folder: after `commit` returns the object is durable under its name or an error was raised. The rename
stands before the sync so that one journal commit of the file system carries both; what a power cut tears between them
nobody knows by name yet. No path is ever built from anything a peer sent.

An object id begins with two bytes that name its folder. One process puts a thousand objects into a folder before it
takes another: the folder of an object is nearly always there already, and durable.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from radnode.errors import NotFoundError, StoreUnavailable

SUFFIX = ".sealed"
FOLDER_OBJECTS = 1000
_FOLDER_BYTES = 2


class FileObjectStore:
    """Objects under one root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: set[Path] = set()
        self._lock = threading.Lock()
        self._prefix = b""
        self._left = 0  # objects that `_prefix` still takes

    def new_id(self) -> bytes:
        """Return a fresh object id (16 bytes): that of a folder and 14 random ones."""
        with self._lock:
            if not self._left:
                self._prefix, self._left = secrets.token_bytes(_FOLDER_BYTES), FOLDER_OBJECTS
            self._left -= 1
            return self._prefix + secrets.token_bytes(16 - _FOLDER_BYTES)

    def create(self, object_id: bytes) -> ObjectWriter:
        """Begin an object.

        Raises:
            StoreUnavailable: the disk is full or failed, or its folder is gone.
        """
        target = self._path(object_id)
        try:
            self._ensure_folder(target.parent)
            return ObjectWriter(target)
        except OSError as error:
            self._known.clear()  # perhaps a folder was taken away
            raise _unavailable("written", error) from error

    @contextlib.contextmanager
    def reading(self, object_id: bytes) -> Iterator[FileIO]:
        """Read the sealed bytes.

        Raises:
            NotFoundError: no object has that id.
            StoreUnavailable: the disk failed.
        """
        try:
            with FileIO(self._path(object_id)) as file:
                yield file
        except FileNotFoundError as error:
            raise NotFoundError("A sealed object is not in the store; restore it from a backup.") from error
        except OSError as error:
            raise _unavailable("read", error) from error

    def delete(self, object_id: bytes) -> None:
        """Remove an object that nothing refers to; one that is not there, or cannot be removed now, is no error."""
        with contextlib.suppress(OSError):
            self._path(object_id).unlink()

    def leftovers(self) -> list[Path]:
        """Return the temporary files whose writers no longer live."""
        return sorted(path for path in self._root.glob("??/??/*.tmp") if not _lives(path.suffixes[0].lstrip(".")))

    def _path(self, object_id: bytes) -> Path:
        name = object_id.hex()
        return self._root / name[:2] / name[2:4] / (name + SUFFIX)

    def _ensure_folder(self, folder: Path) -> None:
        """Make the two levels above an object durable before anything in them is promised.

        A level that is there is synced too: another process may have made it and not be that far yet.
        """
        if folder in self._known:
            return
        for level in (self._root, folder.parent, folder):
            if level not in self._known:
                level.mkdir(mode=0o700, parents=level == self._root, exist_ok=True)
                _sync_folder(level.parent)
                self._known.add(level)


class ObjectWriter:
    """One object on its way to the disk. After an error, or `abort`, nothing of it remains.

    Raises OSError where its file cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_suffix(f".{os.getpid()}.tmp")
        self._file = FileIO(self._temporary, "x", opener=_private)

    def write(self, sealed: memoryview) -> None:
        """Append bytes.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        try:
            while sealed:
                sealed = sealed[os.write(self._file.fileno(), sealed) :]
        except OSError as error:
            self.abort()
            raise _unavailable("written", error) from error

    def commit(self) -> None:
        """Make what was written durable under the object's name.

        Raises:
            StoreUnavailable: the disk is full or failed, or its folder is gone.
        """
        try:
            self._temporary.rename(self._target)
            os.fdatasync(self._file.fileno())
            _sync_folder(self._target.parent)
        except OSError as error:
            self.abort()
            raise _unavailable("written", error) from error
        self._file.close()

    def abort(self) -> None:
        """Remove what was written; once more is no error."""
        self._file.close()
        for path in (self._temporary, self._target):
            with contextlib.suppress(OSError):
                path.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _unavailable(done: str, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"An object could not be {done} ({os.strerror(error.errno or 0)}).")


def _lives(pid: str) -> bool:
    return Path("/proc", pid).exists()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
