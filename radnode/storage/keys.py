"""Keys: a data key per study, wrapped by the key-encryption key; and the files of the key folder.

keys/kek-0001.key      key-encryption key, 32 bytes as hex; the highest number is current
keys/pseudonym.key     key of the pseudonyms
keys/audit.key         seals the identities in the audit trail
keys/audit-sign.key    Ed25519, signs the checkpoints (PEM)
keys/audit-sign.pub    its public half, all that `radnode audit verify` needs (PEM)
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, Connection, Engine, Float, LargeBinary, MetaData, String, Table, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from radnode.errors import KeyUnavailable, SealBroken, StoreUnavailable
from radnode.failpoints import reach

KEY = 32
_NONCE = 12
CACHED_STUDIES = 4096

metadata = MetaData()
study_keys = Table(
    "study_keys",
    metadata,
    Column("key_id", LargeBinary(16), primary_key=True),
    Column("study", String(32), nullable=False, unique=True),
    Column("kek_id", String(16), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
)


class KeyProvider(Protocol):
    """Whoever holds the key-encryption key."""

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Return (key-encryption key id, `key` wrapped and bound to `context`)."""

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return the key; KeyUnavailable when the provider cannot, SealBroken when the bytes were changed."""


class FileKeyProvider:
    """Key-encryption keys as files of 0600 in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Wrap under the current key: nonce (12 bytes) + AES-256-GCM."""
        try:
            names = sorted(path.stem for path in self._folder.glob("kek-*.key"))
        except OSError as error:
            raise KeyUnavailable(f"The key folder {self._folder} cannot be read ({error.strerror}).") from error
        if not names:
            raise KeyUnavailable(f"There is no kek-*.key in {self._folder}; restore the key folder from its backup.")
        nonce = os.urandom(_NONCE)
        return names[-1], nonce + AESGCM(read_key(self._folder / f"{names[-1]}.key")).encrypt(nonce, key, context)

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap under the key that wrapped it."""
        kek = read_key(self._folder / f"{kek_id}.key")
        try:
            return AESGCM(kek).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], context)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"A study key does not open with {kek_id}.key; is this the right key folder?") from error


@dataclass(frozen=True, slots=True)
class StudyKey:
    """One study's data key."""

    key_id: bytes
    secret: bytes


class StudyKeys:
    """The data keys of all studies, wrapped in the database, the recent ones open in memory."""

    def __init__(self, engine: Engine, provider: KeyProvider, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._by_study: dict[str, StudyKey] = {}
        self._by_id: dict[bytes, StudyKey] = {}

    def of_study(self, study: str) -> StudyKey:
        """Return the key of a study (a pseudonym); it is made, and durable, at the first call.

        Raises:
            KeyUnavailable: the provider does not answer.
            StoreUnavailable: the database cannot be read or written now.
        """
        with self._lock:
            found = self._by_study.get(study)
        return found or self._remember(study, self._load(study) or self._create(study))

    def of_id(self, key_id: bytes) -> StudyKey:
        """Return the key that a sealed object's header names.

        Raises:
            KeyUnavailable: the key was destroyed (the study was purged) or never was here.
            StoreUnavailable: the database cannot be read now.
        """
        with self._lock:
            found = self._by_id.get(key_id)
        if found:
            return found
        with self._connection() as connection:
            row = connection.execute(select(study_keys).where(study_keys.c.key_id == key_id)).one_or_none()
        if row is None:
            raise KeyUnavailable("The key of this study is gone: the study was purged, or the database is another one.")
        return self._remember(row.study, self._open(row.key_id, row.kek_id, row.wrapped))

    def check(self) -> int:
        """Open one study key under each key-encryption key, and a new one; return how many study keys there are.

        Raises:
            KeyUnavailable, SealBroken: a key-encryption key is missing, damaged, or that of another node.
        """
        self._open(b"check", *self._provider.wrap(bytes(KEY), b"check"))
        with self._connection() as connection:
            rows = connection.execute(select(study_keys).group_by(study_keys.c.kek_id)).all()
            count = connection.scalar(select(func.count()).select_from(study_keys)) or 0
        for row in rows:
            self._open(row.key_id, row.kek_id, row.wrapped)
        return count

    def _load(self, study: str) -> StudyKey | None:
        with self._connection() as connection:
            row = connection.execute(select(study_keys).where(study_keys.c.study == study)).one_or_none()
        return None if row is None else self._open(row.key_id, row.kek_id, row.wrapped)

    def _create(self, study: str) -> StudyKey:
        """Make a key; where another process was quicker, return that one's."""
        key_id, secret = secrets.token_bytes(16), secrets.token_bytes(KEY)
        kek_id, wrapped = self._provider.wrap(secret, key_id)
        row = {"key_id": key_id, "study": study, "kek_id": kek_id, "wrapped": wrapped, "created": self._clock()}
        with self._connection(writes=True) as connection:
            connection.execute(insert(study_keys).values(row).on_conflict_do_nothing(index_elements=["study"]))
        reach("study-key-made")
        created = self._load(study)
        if created is None:
            raise KeyUnavailable("The key of a study was destroyed while it was made; try again.")
        return created

    @contextmanager
    def _connection(self, *, writes: bool = False) -> Iterator[Connection]:
        """Run one transaction of its own: a study key is durable before anything is sealed under it."""
        try:
            with self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise StoreUnavailable(
                "The study keys cannot be reached now (database locked, full or damaged)."
            ) from error

    def _open(self, key_id: bytes, kek_id: str, wrapped: bytes) -> StudyKey:
        return StudyKey(key_id, self._provider.unwrap(kek_id, wrapped, key_id))

    def _remember(self, study: str, key: StudyKey) -> StudyKey:
        with self._lock:
            if len(self._by_study) >= CACHED_STUDIES:
                oldest = next(iter(self._by_study))
                self._by_id.pop(self._by_study.pop(oldest).key_id, None)
            self._by_study[study] = key
            self._by_id[key.key_id] = key
        return key


def read_key(path: Path) -> bytes:
    """Read one 32-byte key written as hex.

    Raises:
        KeyUnavailable: the file is missing, unreadable or not a key.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise KeyUnavailable(f"The key file {path} cannot be read; restore it from its backup.") from error
    if len(key) != KEY:
        raise KeyUnavailable(f"The key file {path} does not hold {KEY} bytes; restore it from its backup.")
    return key
