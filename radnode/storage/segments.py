"""Sealed objects in segment files: `objects/<segment>.open` while one process appends, `objects/<segment>.seg` after.

An object is an extent of a segment: whole blocks of 4096 bytes, the first of which begins with a mark and the number of
sealed bytes that follow. Its id is the segment (12 random bytes) and the number of its first block. Appending to a file
that is there costs half of what a file of its own costs, and past the page cache (O_DIRECT, where the file system has
it) a third of the processor time; see docs/benchmarks.md.

After `commit` an object is durable or an error was raised. Until then nobody refers to it: what a crash or an error
leaves of it is room that the next object takes, or that `sweep` gives back. A segment is locked (flock) by the process
that appends to it. No path is ever built from anything a peer sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from radnode.errors import NotFoundError
from radnode.storage.extents import (
    BLOCK,
    HEAD,
    STAGING_BYTES,
    ObjectReader,
    ObjectWriter,
    Segment,
    length_at,
    padded,
    unavailable,
)

SEGMENT_BYTES = 1 << 30  # a segment that has grown this long takes no further object
SEGMENT_ID = 12
_KEPT_STAGINGS = 32
_BLOCK_NUMBER = struct.Struct(">I")
_OPEN, _CLOSED = ".open", ".seg"
_PUNCH_HOLE, _KEEP_SIZE = 0x02, 0x01  # fallocate(2)
_libc = ctypes.CDLL(None, use_errno=True)


class SegmentStore:
    """Objects under one root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._idle: list[Segment] = []
        self._stagings: list[mmap.mmap] = []

    def create(self, largest_write: int) -> ObjectWriter:
        """Begin an object, of which at most `largest_write` bytes are added at a time.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        with self._lock:
            segment = self._idle.pop() if self._idle else None
            staging = self._stagings.pop() if self._stagings else None
        try:
            segment = segment or self._new_segment()
        except OSError as error:
            raise unavailable("written", error) from error
        if staging is None or len(staging) < STAGING_BYTES + largest_write:
            staging = mmap.mmap(-1, padded(STAGING_BYTES + largest_write))  # page-aligned, as direct writes need it
        object_id = segment.name + _BLOCK_NUMBER.pack(segment.end // BLOCK)
        return ObjectWriter(object_id, segment, staging, self._take_back)

    def _take_back(self, segment: Segment, staging: mmap.mmap, broken: bool) -> None:
        """Take back what a writer used; a segment that failed or is full takes no further object."""
        with self._lock:
            if len(self._stagings) < _KEPT_STAGINGS:
                self._stagings.append(staging)
            if not broken and segment.end < SEGMENT_BYTES:
                self._idle.append(segment)
                return
        _retire(segment)

    @contextlib.contextmanager
    def reading(self, object_id: bytes) -> Iterator[ObjectReader]:
        """Read the sealed bytes.

        Raises:
            NotFoundError: no object has that id.
            StoreUnavailable: the disk failed.
        """
        try:
            descriptor = self._find(object_id, os.O_RDONLY)
        except FileNotFoundError as error:
            raise NotFoundError("A sealed object is not in the store; restore it from a backup.") from error
        except OSError as error:
            raise unavailable("read", error) from error
        try:
            start = _start(object_id)
            length = length_at(descriptor, start)
            if not length:
                raise NotFoundError("A sealed object is not in the store; restore it from a backup.")
            yield ObjectReader(descriptor, start + HEAD.size, length)
        except OSError as error:
            raise unavailable("read", error) from error
        finally:
            os.close(descriptor)

    def delete(self, object_id: bytes) -> None:
        """Give back the room of an object that nothing refers to; one that is not there is no error."""
        with contextlib.suppress(OSError):
            descriptor = self._find(object_id, os.O_RDWR)
            try:
                start = _start(object_id)
                length = length_at(descriptor, start)
                if length:
                    _punch(descriptor, start, padded(HEAD.size + length))
            finally:
                os.close(descriptor)

    def left_open(self) -> list[bytes]:
        """Return the segments (12 bytes each) that processes which died were appending to."""
        names = []
        for path in self._root.glob(f"*{_OPEN}"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _lock(descriptor):
                    names.append(bytes.fromhex(path.stem))
            finally:
                os.close(descriptor)
        return names

    def sweep(self, name: bytes, kept: Iterable[bytes]) -> int:
        """Close a segment whose writer died: give back the room of what is not among its `kept` objects (ids).

        Returns:
            How many stretches were given back.

        Raises:
            OSError: the disk failed.
        """
        path = self._root / f"{name.hex()}{_OPEN}"
        descriptor = os.open(path, os.O_RDWR)
        try:
            if not _lock(descriptor):
                return 0
            position, size, given = 0, os.fstat(descriptor).st_size, 0
            for start in sorted(_start(object_id) for object_id in kept):
                if _has_data(descriptor, position, start):
                    _punch(descriptor, position, start - position)
                    given += 1
                position = start + padded(HEAD.size + length_at(descriptor, start))
            given += size > position
            os.ftruncate(descriptor, position)
            if position:
                path.rename(path.with_suffix(_CLOSED))
            else:
                path.unlink()
            return given
        finally:
            os.close(descriptor)

    def _new_segment(self) -> Segment:
        """Make a segment, durable in its folder, and lock it."""
        if not self._root.is_dir():
            self._root.mkdir(mode=0o700)
            _sync_folder(self._root.parent)
        name = secrets.token_bytes(SEGMENT_ID)
        path = self._root / f"{name.hex()}{_OPEN}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags | os.O_DIRECT, 0o600)
        except OSError:  # EINVAL where the file system has no direct writes; the file may be there already
            path.unlink(missing_ok=True)
            descriptor = os.open(path, flags, 0o600)
        _lock(descriptor)
        _sync_folder(self._root)
        return Segment(name, path, descriptor)

    def _find(self, object_id: bytes, flags: int) -> int:
        """Open the segment of an object; it may be closed, and so renamed, at this moment."""
        stem = self._root / object_id[:SEGMENT_ID].hex()
        for suffix in (_CLOSED, _OPEN):
            with contextlib.suppress(FileNotFoundError):
                return os.open(stem.with_suffix(suffix), flags)
        return os.open(stem.with_suffix(_CLOSED), flags)


def _retire(segment: Segment) -> None:
    """Let nobody append to a segment any more; where that fails, `sweep` does it at the next start."""
    with contextlib.suppress(OSError):
        if segment.end:
            segment.path.rename(segment.path.with_suffix(_CLOSED))
        else:
            segment.path.unlink()
    os.close(segment.descriptor)


def _start(object_id: bytes) -> int:
    """Return where the extent of an object begins, in bytes."""
    return int(_BLOCK_NUMBER.unpack(object_id[SEGMENT_ID:])[0]) * BLOCK


def _has_data(descriptor: int, start: int, end: int) -> bool:
    """Say whether anything is stored between two positions."""
    try:
        return start < end and os.lseek(descriptor, start, os.SEEK_DATA) < end
    except OSError:  # ENXIO: a hole to the end of the file
        return False


def _punch(descriptor: int, start: int, count: int) -> None:
    """Give a stretch of a file back to the file system; reading it gives zeros."""
    if _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(count)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _lock(descriptor: int) -> bool:
    """Take the lock of a segment; False while another process appends to it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
