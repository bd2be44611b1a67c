"""The object store as a bystander reads it: which extents there are, found by their marks (docs/sealed-object.md)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from radnode.storage.segments import SegmentStore

BLOCK = 4096
_HEAD = struct.Struct(">8sQ")


def put(store: SegmentStore, content: bytes, step: int = 1 << 16) -> bytes:
    """Store an object, at most `step` bytes at a time, and return its id."""
    writer = store.create(step)
    for start in range(0, len(content), step):
        part = content[start : start + step]
        writer.room(step)[: len(part)] = part
        writer.advance(len(part))
    writer.commit()
    return writer.object_id


def get(store: SegmentStore, object_id: bytes) -> bytes:
    """Return the sealed bytes of an object as the store reads them."""
    with store.reading(object_id) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def forget(store: SegmentStore) -> None:
    """Do to a store's segments what the death of its process does: close them, whatever state they are in."""
    folder = str(store._root)
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and str(link.readlink()).startswith(f"{folder}/"):
            os.close(int(link.name))


def segments(objects: Path) -> list[Path]:
    """Return the segment files, whether a process appends to them or not."""
    return sorted([*objects.glob("*.seg"), *objects.glob("*.open")])


def extents(objects: Path) -> dict[bytes, tuple[Path, int, int]]:
    """Return file, position and length of the sealed bytes of every object, by id."""
    found = {}
    for path in segments(objects):
        data = _content(path)
        block = 0
        while block * BLOCK < len(data):
            mark, length = _HEAD.unpack_from(data, block * BLOCK)
            if mark == b"RADEXT\0\1":
                name = bytes.fromhex(path.stem) + struct.pack(">I", block)
                found[name] = (path, block * BLOCK + _HEAD.size, length)
                block += _blocks(length)
            else:
                block += 1
    return found


def sealed(objects: Path, object_id: bytes) -> bytes:
    """Return the sealed bytes of an object."""
    path, position, length = extents(objects)[object_id]
    return path.read_bytes()[position : position + length]


def overwrite(objects: Path, object_id: bytes, content: bytes) -> None:
    """Put other bytes in the place of a sealed object."""
    path, position, length = extents(objects)[object_id]
    assert len(content) == length
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def damage(objects: Path, object_id: bytes, position: int = -1) -> None:
    """Change one byte of a sealed object."""
    content = bytearray(sealed(objects, object_id))
    content[position] ^= 1
    overwrite(objects, object_id, bytes(content))


def erase(objects: Path, object_id: bytes) -> None:
    """Lose an object: its whole extent becomes zeros."""
    path, position, length = extents(objects)[object_id]
    with path.open("r+b") as file:
        file.seek(position - _HEAD.size)
        file.write(bytes(_HEAD.size + length))


def stored_bytes(objects: Path) -> int:
    """Return how many bytes of the segments the file system stores; holes are not stored."""
    return sum(map(_stored, segments(objects)))


def object_bytes(objects: Path) -> int:
    """Return how many bytes the extents of all objects take, whole blocks."""
    return sum(_blocks(length) * BLOCK for _, _, length in extents(objects).values())


def half_written(objects: Path) -> int:
    """Return how many stored bytes belong to no object."""
    return stored_bytes(objects) - object_bytes(objects)


def _blocks(length: int) -> int:
    return -(-(_HEAD.size + length) // BLOCK)


def _content(path: Path) -> bytes:
    """Read a segment, which may be closed, and so renamed, or removed at this moment."""
    for name in (path, path.with_suffix(".seg")):
        if name.exists():
            data = name.read_bytes()
            return data + bytes(-len(data) % BLOCK)
    return b""


def _stored(path: Path) -> int:
    """Add up what stands between the holes (lseek(2), SEEK_DATA)."""
    stored = position = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole to the end
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            stored += position - start
    return stored


def nothing_named(_: bytes) -> list[bytes]:
    """No object of a segment has a name in the index."""
    return []


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int = errno.ENOSPC) -> None:
    """Let the nth call of an os function fail."""
    real: Callable[..., Any] = getattr(os, name)
    calls = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, failing)
