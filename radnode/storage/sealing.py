"""The sealed-object format: AES-256-GCM in chunks under a key of the object's own.

    header (124 bytes, big endian; authenticated with every chunk)
        magic       8   b"RADSEAL\\x01"
        kind        2   `Kind`
        reserved    2   zero
        chunk size  4   plaintext bytes per chunk
        key id     16   which study key
        object id  16   equals the name it is stored under
        length      8   plaintext bytes in all
        salt       32   random
        commitment 32   second half of the HKDF output
        (4 bytes)       CRC-32 of the 120 bytes before it: tells a torn header from a foreign one
    chunks          chunk i = AES-256-GCM(key, nonce_i, plaintext_i, aad=header), 16-byte tag appended
        nonce_i     12  b"\\0" * 7 + i (4 bytes) + (1 if last else 0)

The object key and the commitment are HKDF-SHA256(study key, salt, info = magic + kind + object id), 64 bytes.
An empty object has one empty last chunk. docs/sealed-object.md has test vectors; the independent reader is
tests/support/unseal.py. Sources: NIST SP 800-38D; RFC 5869; Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015 (STREAM).
"""

from __future__ import annotations

import enum
import hmac
import os
import struct
import zlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from radnode.errors import SealBroken

MAGIC = b"RADSEAL\x01"
CHUNK = 1 << 20
TAG = 16
_FIELDS = struct.Struct(">8sHHI16s16sQ32s32s")
HEADER = _FIELDS.size + 4


class Kind(enum.IntEnum):
    """What a sealed object holds."""

    INSTANCE = 1
    RESULT = 2
    REPORT = 3


@dataclass(frozen=True, slots=True)
class Header:
    """The readable part of a sealed object; nothing in it tells of a patient."""

    kind: Kind
    chunk_size: int
    key_id: bytes
    object_id: bytes
    length: int
    salt: bytes
    commitment: bytes

    def encode(self) -> bytes:
        """Return the 124 header bytes."""
        fields = _FIELDS.pack(
            MAGIC, self.kind, 0, self.chunk_size, self.key_id, self.object_id, self.length, self.salt, self.commitment
        )
        return fields + struct.pack(">I", zlib.crc32(fields))


def read_header(sealed: bytes) -> Header:
    """Read the header of a sealed object.

    Raises:
        SealBroken: the bytes are not a sealed object of this format.
    """
    fields = sealed[: _FIELDS.size]
    if len(sealed) < HEADER or sealed[_FIELDS.size : HEADER] != struct.pack(">I", zlib.crc32(fields)):
        raise SealBroken("A sealed object has no readable header; restore it from a backup.")
    magic, kind, reserved, chunk_size, key_id, object_id, length, salt, commitment = _FIELDS.unpack(fields)
    if magic != MAGIC or reserved or not chunk_size or kind not in set(Kind):
        raise SealBroken("A sealed object is of a format that this version does not know.")
    return Header(Kind(kind), chunk_size, key_id, object_id, length, salt, commitment)


def seal(plaintext: bytes | memoryview, *, kind: Kind, key_id: bytes, study_key: bytes, object_id: bytes) -> bytes:
    """Seal `plaintext` under a fresh object key derived from `study_key` (32 bytes)."""
    salt = os.urandom(32)
    key, commitment = _derive(study_key, salt, kind, object_id)
    view = memoryview(plaintext)
    header = Header(kind, CHUNK, key_id, object_id, len(view), salt, commitment).encode()
    cipher = AESGCM(key)
    last = _last_chunk(len(view), CHUNK)
    parts = [header]
    for index in range(last + 1):
        chunk = view[index * CHUNK : (index + 1) * CHUNK]
        parts.append(cipher.encrypt(_nonce(index, final=index == last), chunk, header))
    return b"".join(parts)


def unseal(sealed: bytes, study_key: bytes) -> bytes:
    """Open a sealed object; nothing is returned unless every chunk authenticates.

    Raises:
        SealBroken: another key, a changed byte, a missing, moved or additional chunk.
    """
    header = read_header(sealed)
    key, commitment = _derive(study_key, header.salt, header.kind, header.object_id)
    if not hmac.compare_digest(commitment, header.commitment):
        raise SealBroken("A sealed object does not open with the key of its study.")
    last = _last_chunk(header.length, header.chunk_size)
    if len(sealed) != HEADER + header.length + (last + 1) * TAG:
        raise SealBroken("A sealed object is shorter or longer than its header says.")
    associated = sealed[:HEADER]
    cipher = AESGCM(key)
    view = memoryview(sealed)[HEADER:]
    step = header.chunk_size + TAG
    try:
        return b"".join(
            cipher.decrypt(_nonce(index, final=index == last), view[index * step : (index + 1) * step], associated)
            for index in range(last + 1)
        )
    except InvalidTag as error:
        raise SealBroken("A sealed object was changed after it was written; restore it from a backup.") from error


def _derive(study_key: bytes, salt: bytes, kind: Kind, object_id: bytes) -> tuple[bytes, bytes]:
    info = MAGIC + struct.pack(">H", kind) + object_id
    material = HKDF(algorithm=SHA256(), length=64, salt=salt, info=info).derive(study_key)
    return material[:32], material[32:]


def _last_chunk(length: int, chunk_size: int) -> int:
    return max(0, length - 1) // chunk_size


def _nonce(index: int, *, final: bool) -> bytes:
    return struct.pack(">7xIB", index, final)
