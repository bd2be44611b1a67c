"""Recording: an audit entry is a row of the same transaction as what it describes.

The row holds the entry as one line of JSON; its number is the row's key. AUTOINCREMENT counts inside the
transaction, so that a rollback gives the number back and the numbers have no gaps.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from radnode.audit.events import Actor, AuditRecord
from radnode.errors import AuditError
from radnode.prepared import OpenTransaction, Prepared

metadata = MetaData()
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("entry", Text, nullable=False),
    sqlite_autoincrement=True,
)

_INSERT = Prepared(insert(audit_entries), ["entry"])
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_BOUND_TO = b"radnode audit identity v2\n"
_DERIVED_FOR = b"radnode audit patient v1\n"
_REMEMBERED = 1024  # keys of patients
_NONCE = 12  # bytes, NIST SP 800-38D section 8.2.2


class AuditLog:
    """Writes audit records; from `key` (32 bytes) come the keys that seal the identities in them, one a patient."""

    def __init__(self, key: bytes) -> None:
        patient_key(key, None)
        self._key = key

    def record(self, connection: Connection, record: AuditRecord) -> int:
        """Insert one record into the open transaction of `connection` and return its number.

        Raises AuditError when it cannot be written; the caller must then roll back.
        """
        entry = self.compose(record)
        try:
            inserted = connection.execute(insert(audit_entries).values(entry=entry))
        except SQLAlchemyError:
            raise _unwritten() from None
        key = inserted.inserted_primary_key
        if key is None:
            raise AuditError("The database gave the audit entry no number.")
        return int(key[0])

    def compose(self, record: AuditRecord) -> str:
        """Return the row of one record, its identity sealed, for `append`; it has its time now and its number then.

        Raises AuditError when the record holds a value that has no JSON form.
        """
        try:
            entry = _entry(record)
            if record.identity is not None:
                entry["sealed"] = self._seal(record.identity, entry)
            return _json(entry)
        except (TypeError, ValueError, OverflowError):
            raise AuditError("The audit entry holds a value that has no JSON form.") from None

    def append(self, connection: OpenTransaction, rows: Sequence[str]) -> None:
        """Insert composed rows, at least one, in their order into the open transaction of `connection`.

        Raises AuditError when they cannot be written; the caller must then roll back.
        """
        try:
            _INSERT.run(connection, [{"entry": row} for row in rows])
        except SQLAlchemyError:
            raise _unwritten() from None

    def _seal(self, identity: Mapping[str, str], entry: dict[str, Any]) -> str:
        """Encrypt the identity, bound to every other field of the entry; base64 of nonce and ciphertext."""
        nonce = os.urandom(_NONCE)
        cipher = _cipher(self._key, entry["patient"])
        sealed = cipher.encrypt(nonce, _json(dict(identity)).encode(), _BOUND_TO + _json(entry).encode())
        return base64.b64encode(nonce + sealed).decode()


def _unwritten() -> AuditError:
    return AuditError("The audit entry could not be written; look at the disk and the database.")


def count_entries(connection: Connection) -> int:
    """Return how many entries were committed; their numbers have no gaps."""
    return connection.scalar(select(func.max(audit_entries.c.seq))) or 0


def line_of(seq: int, entry: str, prev: str) -> bytes:
    """Return the line of the trail, without its newline: the row's JSON between its number and `prev`.

    Raises AuditError when the row is not one line of JSON.
    """
    if not (entry.startswith("{") and entry.endswith("}") and entry.isascii()) or "\n" in entry:
        raise AuditError(f"Audit row {seq} is damaged; run radnode audit verify.")
    return f'{{"seq":{seq},{entry[1:-1]},"prev":"{prev}"}}'.encode()


def open_sealed(entry: Mapping[str, Any], key: bytes) -> dict[str, str] | None:
    """Return the real identity in an entry of the trail, or None when it has none.

    `entry` is the parsed JSON line with its keys in order. Raises AuditError when the key is not the one it
    was sealed under, or any field of the entry was changed.
    """
    if entry["sealed"] is None:
        return None
    bound = {name: value for name, value in entry.items() if name not in ("seq", "prev")} | {"sealed": None}
    try:
        blob = base64.b64decode(entry["sealed"], validate=True)
        cipher = _cipher(key, entry["patient"])
        plain = cipher.decrypt(blob[:_NONCE], blob[_NONCE:], _BOUND_TO + _json(bound).encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise AuditError("The identity does not open: another audit key, or a changed entry.") from None
    identity: dict[str, str] = json.loads(plain)
    return identity


def patient_key(key: bytes, patient: str | None) -> bytes:
    """Return the key (32 bytes) of the entries about one pseudonym, or about nobody: it opens no others.

    Raises AuditError when `key` has not 32 bytes.
    """
    if len(key) != 32:
        raise AuditError("The audit key must have 32 bytes.")
    return HKDF(SHA256(), 32, None, _DERIVED_FOR + (patient or "").encode()).derive(key)


@lru_cache(_REMEMBERED)
def _cipher(key: bytes, patient: str | None) -> AESGCM:
    """Return AES-256-GCM under the key of one patient."""
    return AESGCM(patient_key(key, patient))


def _entry(record: AuditRecord) -> dict[str, Any]:
    """Return the fields of the entry in the order of the trail, without `seq` and `prev`, not yet sealed."""
    event = record.event
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "event": event.label,
        "action": (event.action if record.action is None else record.action).value,
        "outcome": (event.outcome if record.outcome is None else record.outcome).value,
        "actor": {name: getattr(record.actor, name) for name in Actor.__slots__},
        "patient": record.patient,
        "study": record.study,
        "instance": record.instance,
        "model": record.model,
        "detail": dict(sorted(record.detail.items())),
        "sealed": None,
    }


def _json(value: dict[str, Any]) -> str:
    """Return one line of ASCII JSON without spaces; control characters and foreign scripts are escaped."""
    return _ENCODER.encode(value)
