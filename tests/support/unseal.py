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
    header, body = sealed[:116], sealed[116:]
    if len(header) != 116 or header[:8] != b"RADSEAL\x02":
        raise ValueError("no sealed object of version 2")
    if zlib.crc32(header[:112]) != int.from_bytes(header[112:], "big"):
        raise ValueError("the header is torn")
    kind, reserved, chunk_size = header[8:10], header[10:12], int.from_bytes(header[12:16], "big")
    object_id, salt, commitment = header[32:48], header[48:80], header[80:112]
    if (
        kind not in (b"\0\1", b"\0\2", b"\0\3", b"\0\4", b"\0\5")
        or reserved != b"\0\0"
        or not 0 < chunk_size <= 16 << 20
    ):
        raise ValueError("unknown kind, flags or chunk size")
    derived = HKDF(SHA256(), 64, salt, b"RADSEAL\x02" + kind + object_id).derive(study_key)
    if derived[32:] != commitment:
        raise ValueError("another study key")
    plaintext = b""
    for number in range(len(body) // (chunk_size + 16) + 1):
        chunk, body = body[: chunk_size + 16], body[chunk_size + 16 :]
        nonce = bytes(7) + number.to_bytes(4, "big") + bytes([len(chunk) < chunk_size + 16])
        plaintext += AESGCM(derived[:32]).decrypt(nonce, chunk, header)
    return plaintext


if __name__ == "__main__":
    sys.stdout.buffer.write(unseal(Path(sys.argv[2]).read_bytes(), bytes.fromhex(sys.argv[1])))
