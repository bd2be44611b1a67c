"""Sealed objects as files: `objects/ab/cd/<object id>.sealed`, 0600 in folders of 0700.

Written whole to a temporary name beside the target, which holds the writer's process id, fsynced, renamed, and the
folder fsynced: after `put` returns the object is durable under its name or an error was raised. The name is a random
object id; no path is ever built from anything a peer sent.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from radnode.errors import NotFoundError, StoreUnavailable

SUFFIX = ".sealed"


class FileObjectStore:
    """Objects under one root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: set[Path] = set()

    @staticmethod
    def new_id() -> bytes:
        """Return a fresh random object id (16 bytes)."""
        return secrets.token_bytes(16)

    def put(self, object_id: bytes, sealed: bytes) -> None:
        """Make `sealed` durable under `object_id`.

        Raises:
            StoreUnavailable: the disk is full or failed; nothing of the object remains.
        """
        target = self._path(object_id)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._ensure_folder(target.parent)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _write_all(descriptor, sealed)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(target)
            _sync_folder(target.parent)
        except OSError as error:
            self._known.clear()  # perhaps a folder was taken away
            for path in (temporary, target):
                with contextlib.suppress(OSError):
                    path.unlink()
            raise StoreUnavailable(f"An object could not be written ({os.strerror(error.errno or 0)}).") from error

    def get(self, object_id: bytes) -> bytes:
        """Return the sealed bytes.

        Raises:
            NotFoundError: no object has that id.
            StoreUnavailable: the disk failed.
        """
        try:
            return self._path(object_id).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError("A sealed object is not in the store; restore it from a backup.") from error
        except OSError as error:
            raise StoreUnavailable(f"An object could not be read ({os.strerror(error.errno or 0)}).") from error

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
        for level in (self._root, folder.parent, folder):
            if level not in self._known:
                level.mkdir(mode=0o700, parents=level == self._root, exist_ok=True)
                _sync_folder(level.parent)
                self._known.add(level)


def _lives(pid: str) -> bool:
    return Path("/proc", pid).exists()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
