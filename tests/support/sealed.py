"""Sealing and unsealing of whole objects in memory, by the node's own sealer and reader."""

from __future__ import annotations

import io

from radnode.storage import sealing
from radnode.storage.sealing import Header, Kind, Sealer, read_header, unseal


def seal(plaintext: bytes, *, kind: Kind, key_id: bytes, study_key: bytes, object_id: bytes) -> bytes:
    """Return a sealed object."""
    sealer = Sealer(kind=kind, key_id=key_id, study_key=study_key, object_id=object_id)
    view, size, sealed = memoryview(plaintext), sealing.CHUNK, b""
    room = memoryview(bytearray(sealing.HEADER + size + sealing.TAG))
    for start in range(0, len(view) + 1, size):
        chunk = view[start : start + size]
        sealed += room[: sealer.seal_into(room, chunk, final=len(chunk) < size)]
    return sealed


def header_of(sealed: bytes) -> Header:
    """Return the header of a sealed object."""
    return read_header(io.BytesIO(sealed))


def open_sealed(sealed: bytes, study_key: bytes) -> bytes:
    """Return the plaintext of a sealed object."""
    source = io.BytesIO(sealed)
    return b"".join(unseal(read_header(source), source, study_key))
