"""Sealed objects in segment files: `objects/<segment>.open` while one process appends, `objects/<segment>.seg` after.

An object is an extent of a segment: whole blocks of 4096 bytes, the first of which begins with a mark and the number of
sealed bytes that follow. Its id is the segment (12 random bytes) and the number of its first block. Appending to a file
that is there costs half of what a file of its own costs, and past the page cache (O_DIRECT, where the file system has
it) a third of the processor time.

After `commit` an object is durable or an error was raised. Until then nobody refers to it: what an error leaves of it
is room that the next object takes, what a crash leaves `sweep` gives back. A process holds the lock (flock) of every
segment whose objects the index may not name yet. No path is ever built from anything a peer sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import secrets
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from radnode.durable import sync_folder
from radnode.errors import NotFoundError, StoreUnavailable
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
_RETIRED = 8  # full or failed segments that stay locked: the index names the objects of older ones, or never will
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
        self._retired: deque[Segment] = deque()
        self._stagings: list[mmap.mmap] = []
        self._left: set[bytes] = set()  # segments with an object that is left to `sweep`

    def create(self, largest_write: int) -> ObjectWriter:
        """Begin an object, of which at most `largest_write` bytes are added at a time.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        try:
            staging = self._take_staging(padded(STAGING_BYTES + largest_write))
            with self._lock:
                segment = self._idle.pop() if self._idle else None
            segment = segment or self._new_segment()
        except OSError as error:
            raise unavailable("written", error) from error
        object_id = segment.name + _BLOCK_NUMBER.pack(segment.end // BLOCK)
        return ObjectWriter(object_id, segment, staging, self._take_back)

    def _take_staging(self, count: int) -> mmap.mmap:
        """Return at least so many bytes that begin at a page, as direct writes need it."""
        with self._lock:
            staging = self._stagings.pop() if self._stagings else None
        return staging if staging is not None and len(staging) >= count else mmap.mmap(-1, count)

    def _take_back(self, segment: Segment, staging: mmap.mmap, broken: bool) -> None:
        """Take back what a writer used; a segment that failed or is full takes no further object."""
        closing: Segment | None = segment
        with self._lock:
            if len(self._stagings) < _KEPT_STAGINGS:
                self._stagings.append(staging)
            if not broken and segment.end < SEGMENT_BYTES:
                self._idle.append(segment)
                return
            if segment.end:
                self._retired.append(segment)
                closing = self._retired.popleft() if len(self._retired) > _RETIRED else None
        if closing is not None:
            _close(closing, is_settled=closing.name not in self._left)

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
        """Give back the room of an object that nothing refers to; one that is not there is no error.

        Where the disk fails, this is left to `sweep`.
        """
        try:
            self.remove(object_id)
        except StoreUnavailable:
            self.leave(object_id)

    def remove(self, object_id: bytes) -> None:
        """Give back the room of an object for good, and a closed segment in which nothing is left; else as `delete`.

        Raises:
            StoreUnavailable: the disk failed.
        """
        try:
            descriptor = self._find(object_id, os.O_RDWR)
            try:
                start = _start(object_id)
                length = length_at(descriptor, start)
                if length:
                    _punch(descriptor, start, padded(HEAD.size + length))
                closed = (self._root / object_id[:SEGMENT_ID].hex()).with_suffix(_CLOSED)
                if closed.exists() and not _has_data(descriptor, 0, os.fstat(descriptor).st_size):
                    closed.unlink(missing_ok=True)  # nobody appends to what is closed
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable("removed", error) from error

    def copy(self, objects: Sequence[bytes], folder: Path) -> list[bytes]:
        """Copy objects of one segment (ids, in their order) into a segment of that name, at their places.

        Returns:
            Those that are not in the store.

        Raises:
            OSError: the disk failed, or there is such a segment.
        """
        missing = []
        try:
            source = self._find(objects[0], os.O_RDONLY)
        except FileNotFoundError:
            return list(objects)
        try:
            path = (folder / objects[0][:SEGMENT_ID].hex()).with_suffix(_CLOSED)
            target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                for object_id in objects:
                    start = _start(object_id)
                    length = length_at(source, start)
                    if length:
                        _copy_range(source, target, start, padded(HEAD.size + length))
                    else:
                        missing.append(object_id)
                os.fsync(target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return missing

    def leave(self, object_id: bytes) -> None:
        """Leave it to `sweep` whether anything refers to an object of this process: nobody can tell now.

        What is closed is not swept. So this process never closes the segment, only lets go of it in the end.
        """
        with self._lock:
            self._left.add(object_id[:SEGMENT_ID])

    def sweep(self, named: Callable[[bytes], Iterable[bytes]]) -> int:
        """Close the segments of processes that died and give back the room of what nobody refers to.

        Args:
            named: returns the ids that the index names of those that begin with these 12 bytes.

        Returns:
            How many stretches were given back.

        Raises:
            StoreUnavailable: the disk failed.
        """
        given = 0
        try:
            for path in self._root.glob("[0-9a-f]" * (2 * SEGMENT_ID) + _OPEN):
                with contextlib.suppress(FileNotFoundError):  # it was closed at this moment
                    descriptor = os.open(path, os.O_RDWR)
                    try:
                        if _lock(descriptor):
                            given += _clear(descriptor, named(bytes.fromhex(path.stem)))
                            _rename_or_remove(path, os.fstat(descriptor).st_size)
                    finally:
                        os.close(descriptor)
        except OSError as error:
            raise unavailable("swept", error) from error
        return given

    def _new_segment(self) -> Segment:
        """Make a segment, durable in its folder, and lock it."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self._root.parent)
        while True:
            name = secrets.token_bytes(SEGMENT_ID)
            path = self._root / f"{name.hex()}{_OPEN}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if _lock(descriptor) and (status := os.fstat(descriptor)).st_nlink:
                    with contextlib.suppress(OSError):  # EINVAL: the file system has no direct writes
                        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
                    sync_folder(self._root)
                    return Segment(name, path, descriptor, status)
                os.close(descriptor)  # a sweep took it, before it was locked, for one whose writer died
            except OSError:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                raise

    def _find(self, object_id: bytes, flags: int) -> int:
        """Open the segment of an object; it may be closed, and so renamed, at this moment."""
        stem = self._root / object_id[:SEGMENT_ID].hex()
        for suffix in (_CLOSED, _OPEN):
            with contextlib.suppress(FileNotFoundError):
                return os.open(stem.with_suffix(suffix), flags)
        return os.open(stem.with_suffix(_CLOSED), flags)


def _copy_range(source: int, target: int, start: int, count: int) -> None:
    """Copy a stretch of a file to the same place of another."""
    while count:
        block = os.pread(source, min(count, 1 << 20), start)
        if not block:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written = os.pwrite(target, block, start)
        start, count = start + written, count - written


def _close(segment: Segment, *, is_settled: bool) -> None:
    """Let go of a segment that nobody appends to any more; what is not settled, or fails, is left to `sweep`."""
    with contextlib.suppress(OSError):
        os.ftruncate(segment.descriptor, segment.end)
        if is_settled:
            _rename_or_remove(segment.path, segment.end)
    os.close(segment.descriptor)


def _rename_or_remove(path: Path, size: int) -> None:
    """Close a segment of that many bytes; an empty one goes."""
    if size:
        path.rename(path.with_suffix(_CLOSED))
    else:
        path.unlink()


def _clear(descriptor: int, kept: Iterable[bytes]) -> int:
    """Give back what of a segment is not in its `kept` objects (ids); return how many stretches that were."""
    size = os.fstat(descriptor).st_size
    starts = [start for start in sorted(map(_start, kept)) if start < size]
    given = position = 0
    for start, following in pairwise([*starts, size]):
        if _has_data(descriptor, position, start):
            _punch(descriptor, position, start - position)
            given += 1
        length = length_at(descriptor, start)
        position = min(start + padded(HEAD.size + length), following) if length else following  # damaged: spare all
    given += _has_data(descriptor, position, size)
    os.ftruncate(descriptor, position)
    return given


def _start(object_id: bytes) -> int:
    """Return where the extent of an object begins, in bytes."""
    return int(_BLOCK_NUMBER.unpack(object_id[SEGMENT_ID:])[0]) * BLOCK


def _has_data(descriptor: int, start: int, end: int) -> bool:
    """Say whether anything is stored between two positions."""
    try:
        return start < end and os.lseek(descriptor, start, os.SEEK_DATA) < end
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole to the end of the file
            return False
        raise


def _punch(descriptor: int, start: int, count: int) -> None:
    """Give a stretch of a file back to the file system, where that can take it; reading it gives zeros."""
    if _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(count)):
        code = ctypes.get_errno()
        if code != errno.EOPNOTSUPP:
            raise OSError(code, os.strerror(code))
        os.pwrite(descriptor, bytes(HEAD.size), start)  # no object, though its room stays taken


def _lock(descriptor: int) -> bool:
    """Take the lock of a segment; False while another process appends to it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
