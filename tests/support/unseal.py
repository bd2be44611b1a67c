"""An independent reader of sealed objects, written from docs/sealed-object.md alone; shares no code with radnode.

python unseal.py KEY_HEX FILE > plaintext
"""

import sys
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def unseal(sealed, study_key):
    """Return the plaintext of a sealed object, or raise ValueError (cryptography: InvalidTag)."""
    header, body = sealed[:124], sealed[124:]
    if len(header) != 124 or header[:8] != b"RADSEAL\x01":
        raise ValueError("no sealed object of version 1")
    if zlib.crc32(header[:120]) != int.from_bytes(header[120:], "big"):
        raise ValueError("the header is torn")
    kind, reserved, chunk_size = header[8:10], header[10:12], int.from_bytes(header[12:16], "big")
    object_id, length = header[32:48], int.from_bytes(header[48:56], "big")
    salt, commitment = header[56:88], header[88:120]
    if kind not in (b"\0\1", b"\0\2", b"\0\3") or reserved != b"\0\0" or chunk_size == 0:
        raise ValueError("unknown kind or flags")
    derived = HKDF(SHA256(), 64, salt, b"RADSEAL\x01" + kind + object_id).derive(study_key)
    if derived[32:] != commitment:
        raise ValueError("another study key")
    chunks = max(1, -(-length // chunk_size))
    if len(body) != length + 16 * chunks:
        raise ValueError("cut off or extended")
    plaintext = b""
    for number in range(chunks):
        chunk, body = body[: chunk_size + 16], body[chunk_size + 16 :]
        nonce = bytes(7) + number.to_bytes(4, "big") + bytes([number == chunks - 1])
        plaintext += AESGCM(derived[:32]).decrypt(nonce, chunk, header)
    return plaintext


if __name__ == "__main__":
    sys.stdout.buffer.write(unseal(Path(sys.argv[2]).read_bytes(), bytes.fromhex(sys.argv[1])))
