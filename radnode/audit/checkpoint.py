"""Checkpoints: what the trail was at one moment, signed (C2SP tlog-checkpoint in a C2SP signed-note).

The text of a note is: origin, number of entries, base64 root hash, then two extension lines: `time` with the
UTC moment and `prev` with the `prev` of the last entry covered, which lets a verifier tell a change of that
entry from a change before it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from radnode.errors import AuditError

_ED25519 = b"\x01"  # C2SP signed-note, signature types
_SIGNATURE_PREFIX = "— "  # U+2014 and a space
_KEY_ID = 4  # bytes of SHA-256 that identify a key


def key_id(name: str, public: bytes) -> bytes:
    """Return the 4-byte key ID: SHA-256(name || 0x0A || 0x01 || public key), cut (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_ID]


def _check_name(name: str) -> None:
    """Refuse a key name that is empty or holds a space or a plus sign (C2SP signed-note)."""
    if not name or "+" in name or any(character.isspace() or not character.isprintable() for character in name):
        raise AuditError("The name of an audit key must be printable, without spaces and plus signs.")


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public half of a note key, written `name+keyid+base64(0x01 || public key)`."""

    name: str
    public: bytes

    @classmethod
    def from_string(cls, text: str) -> Verifier:
        """Read a verifier key. Raises AuditError when it is not an Ed25519 one or its ID does not fit."""
        name, ident, material = _fields(text.strip().split("+", 2))
        if material[:1] != _ED25519 or len(material) != 33 or ident != key_id(name, material[1:]).hex():
            raise AuditError("The audit verifier key is damaged or not an Ed25519 key.")
        return cls(name, material[1:])

    def __str__(self) -> str:
        material = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{key_id(self.name, self.public).hex()}+{material}"

    def open(self, note: str) -> str:
        """Return the text of a note this key has signed, its last newline included.

        Signatures of other keys are ignored. Raises AuditError when the note is malformed, not signed by this
        key, or signed wrongly.
        """
        text, separator, signatures = note.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise AuditError("The checkpoint is not a signed note.")
        text += "\n"
        for line in signatures[:-1].split("\n"):
            name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
            if not line.startswith(_SIGNATURE_PREFIX) or not name:
                raise AuditError("The checkpoint has a malformed signature line.")
            blob = _decode(encoded)
            if name == self.name and blob[:_KEY_ID] == key_id(self.name, self.public):
                try:
                    Ed25519PublicKey.from_public_bytes(self.public).verify(blob[_KEY_ID:], text.encode())
                except InvalidSignature:
                    raise AuditError("The signature of a checkpoint is wrong.") from None
                return text
        raise AuditError("The checkpoint is not signed by the audit key.")


class Signer:
    """The private half of a note key, written `PRIVATE+KEY+name+keyid+base64(0x01 || seed)`."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        _check_name(name)
        self._key = key
        self.verifier = Verifier(name, key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Signer:
        """Make a new key."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_string(cls, text: str) -> Signer:
        """Read a signer key as `to_string` writes it. Raises AuditError when it is damaged."""
        parts = text.strip().split("+", 4)
        name, ident, material = _fields(parts[2:])
        if parts[:2] != ["PRIVATE", "KEY"] or material[:1] != _ED25519 or len(material) != 33:
            raise AuditError("The audit signing key is damaged or not an Ed25519 key.")
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(material[1:]))
        if ident != key_id(name, signer.verifier.public).hex():
            raise AuditError("The audit signing key is damaged.")
        return signer

    def to_string(self) -> str:
        """Return the key for a file that only the node may read."""
        material = base64.b64encode(_ED25519 + self._key.private_bytes_raw()).decode()
        return f"PRIVATE+KEY+{self.verifier.name}+{key_id(self.verifier.name, self.verifier.public).hex()}+{material}"

    def sign(self, text: str) -> str:
        """Return `text` (which ends with a newline) as a signed note."""
        blob = key_id(self.verifier.name, self.verifier.public) + self._key.sign(text.encode())
        return f"{text}\n{_SIGNATURE_PREFIX}{self.verifier.name} {base64.b64encode(blob).decode()}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`size` entries have the Merkle root `root` (32 bytes); `extension` lines follow (C2SP tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes
    extension: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the note text, one line per field."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extension)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Read a note text. Raises AuditError when it is not a checkpoint."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise AuditError("The signed note is not a checkpoint.")
        origin, size, root = lines[0], lines[1], _decode(lines[2])
        if not re.fullmatch(r"0|[1-9][0-9]{0,19}", size) or len(root) != 32:
            raise AuditError("The signed note is not a checkpoint.")
        return cls(origin, int(size), root, tuple(lines[3:]))


def _fields(parts: list[str]) -> tuple[str, str, bytes]:
    """Return name, key ID and key material of a key string's last three fields."""
    if len(parts) != 3:
        raise AuditError("An audit key has a name, an identifier and a key, joined by plus signs.")
    _check_name(parts[0])
    return parts[0], parts[1], _decode(parts[2])


def _decode(text: str) -> bytes:
    """Decode strict base64. Raises AuditError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AuditError("A key, root or signature of the audit trail is not base64.") from None
