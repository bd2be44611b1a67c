"""The object store as a bystander reads it: which extents there are, found by their marks (storage/extents.py)."""

from __future__ import annotations

import struct
from pathlib import Path

BLOCK = 4096
_HEAD = struct.Struct(">8sQ")


def extents(objects: Path) -> dict[bytes, tuple[Path, int, int]]:
    """Return file, position and length of the sealed bytes of every object, by id."""
    found = {}
    for path in [*objects.glob("*.seg"), *objects.glob("*.open")]:
        data = path.read_bytes()
        block = 0
        while block * BLOCK < len(data):
            mark, length = _HEAD.unpack_from(data, block * BLOCK)
            if mark == b"RADEXT\0\1":
                name = bytes.fromhex(path.stem) + struct.pack(">I", block)
                found[name] = (path, block * BLOCK + _HEAD.size, length)
                block += -(-(_HEAD.size + length) // BLOCK)
            else:
                block += 1
    return found


def swap(objects: Path, first: bytes, second: bytes) -> None:
    """Put a copy of the second object in the place of the first, which has the same length."""
    where = extents(objects)
    path, position, length = where[second]
    sealed = path.read_bytes()[position : position + length]
    overwrite(objects, first, sealed)


def overwrite(objects: Path, object_id: bytes, sealed: bytes) -> None:
    """Put other bytes in the place of a sealed object."""
    path, position, length = extents(objects)[object_id]
    assert len(sealed) == length
    with path.open("r+b") as file:
        file.seek(position)
        file.write(sealed)
