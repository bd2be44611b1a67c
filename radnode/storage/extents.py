"""Extents: one sealed object in a segment file, and how it gets there.

An extent is whole blocks of 4096 bytes. It begins with a mark and the number of sealed bytes that follow (8 bytes each,
big endian), and is filled with zeros. The mark is written last, with the length: without it there is no object.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from radnode import baton
from radnode.errors import StoreUnavailable

BLOCK = 4096  # alignment of direct writes
STAGING_BYTES = 768 << 10  # about what is written at once
HEAD = struct.Struct(">8sQ")
_MARK = b"RADEXT\x00\x01"


@dataclass(slots=True)
class Segment:
    """A segment that this process appends to, one object at a time; the next one starts at `end`."""

    name: bytes
    path: Path
    descriptor: int
    status: os.stat_result  # of the file when it was made
    end: int = 0

    def require_in_place(self) -> None:
        """Raise OSError where the file is no longer found under its name: its folder was moved or replaced."""
        if not os.path.samestat(os.stat(self.path), self.status):  # noqa: PTH116 (for each object)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def write(self, blocks: memoryview, position: int) -> None:
        """Write whole blocks; past the page cache as long as the file system takes it."""
        while blocks:
            try:
                with baton.waiting:
                    written = os.pwrite(self.descriptor, blocks, position)
            except OSError as error:
                if error.errno != errno.EINVAL or not fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                    raise
                fcntl.fcntl(self.descriptor, fcntl.F_SETFL, 0)
            else:
                blocks, position = blocks[written:], position + written


class ObjectWriter:
    """One object on its way to the disk. After an error, or `abort`, nothing refers to what was written of it.

    Args:
        object_id: what it will be called.
        segment: where it is appended; the writer's until it gives it back.
        staging: page-aligned memory.
        give_back: takes segment and staging in the end, and whether the disk failed.
    """

    def __init__(
        self,
        object_id: bytes,
        segment: Segment,
        staging: mmap.mmap,
        give_back: Callable[[Segment, mmap.mmap, bool], None],
    ) -> None:
        self.object_id = object_id
        self._segment = segment
        self._give_back = give_back
        self._staging = staging
        self._view = memoryview(staging)
        self._view[: HEAD.size] = bytes(HEAD.size)  # stays empty until the length is known
        self._filled = HEAD.size  # bytes in the staging
        self._written = 0
        self._first = b""  # the first block, where it was written before the end was known
        self._done = False

    def room(self, count: int) -> memoryview:
        """Return memory for the next `count` bytes of the object.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        if self._filled + count > len(self._view):
            if not self._written:
                self._first = bytes(self._view[:BLOCK])
            self._flush(self._filled // BLOCK * BLOCK)
        return self._view[self._filled : self._filled + count]

    def advance(self, count: int) -> None:
        """Say that `count` bytes were written to `room()`."""
        self._filled += count

    def commit(self) -> None:
        """Make the object durable under its id.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        length = self._written + self._filled - HEAD.size
        end = padded(self._filled)
        self._view[self._filled : end] = bytes(end - self._filled)
        head = HEAD.pack(_MARK, length)
        if not self._written:
            self._view[: HEAD.size] = head
        self._flush(end)
        try:
            if self._first:
                self._view[:BLOCK] = head + self._first[HEAD.size :]
                self._segment.write(self._view[:BLOCK], self._segment.end)
            with baton.waiting:
                os.fdatasync(self._segment.descriptor)
            self._segment.require_in_place()
        except OSError as error:
            self.abort(broken=True)
            raise unavailable("written", error) from error
        self._segment.end += self._written
        self._release(broken=False)

    def abort(self, *, broken: bool = False) -> None:
        """Forget what was written; once more is no error."""
        if not self._done:
            if self._written or broken:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._segment.descriptor, self._segment.end)
            self._release(broken=broken)

    def _flush(self, count: int) -> None:
        """Write the first `count` bytes of the staging, whole blocks, and move what is left to its start.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        try:
            self._segment.write(self._view[:count], self._segment.end + self._written)
        except OSError as error:
            self.abort(broken=True)
            raise unavailable("written", error) from error
        self._written += count
        left = max(self._filled - count, 0)
        self._view[:left] = self._view[count : count + left]
        self._filled = left

    def _release(self, *, broken: bool) -> None:
        self._done = True
        self._give_back(self._segment, self._staging, broken)


class ObjectReader:
    """The sealed bytes of one object, front to back."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor = descriptor
        self._position = start
        self._left = length

    def read(self, count: int, /) -> bytes:
        """Return the next `count` bytes; fewer only at the end."""
        data = b""
        wanted = min(count, self._left)
        while len(data) < wanted:
            more = os.pread(self._descriptor, wanted - len(data), self._position)
            if not more:
                break  # cut off: the seal will not open
            data = data + more if data else more
            self._position += len(more)
        self._left -= len(data)
        return data


def padded(count: int) -> int:
    """Return `count` bytes in whole blocks."""
    return -(-count // BLOCK) * BLOCK


def length_at(descriptor: int, start: int) -> int:
    """Return the number of sealed bytes in an extent; 0 where there is none."""
    head = os.pread(descriptor, HEAD.size, start)
    mark, length = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0)
    return int(length) if mark == _MARK else 0


def unavailable(done: str, error: OSError) -> StoreUnavailable:
    """Return what a disk that is full or failed is called outside this room."""
    return StoreUnavailable(f"An object could not be {done} ({os.strerror(error.errno or 0)}).")
