"""Study keys: a data key per study, wrapped by a key-encryption key that a `KeyProvider` holds; and the key folder.

keys/kek-0001.key      key-encryption key, 32 bytes as hex; the highest number is current (provider "file")
keys/pseudonym.key     key of the pseudonyms
keys/audit.key         seals the identities in the audit trail
keys/audit-sign.key    Ed25519, signs the checkpoints (PEM)
keys/audit-sign.pub    its public half, all that `radnode audit verify` needs (PEM)
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from radnode import baton
from radnode.errors import KeyUnavailable, SealBroken, StoreUnavailable
from radnode.failpoints import reach

KEY = 32
CACHED_STUDIES = 4096
CACHE_SECONDS = 300.0

metadata = MetaData()
study_keys = Table(
    "study_keys",
    metadata,
    Column("key_id", LargeBinary(16), primary_key=True),
    Column("study", String(32), nullable=False, unique=True),
    Column("kek_id", String(256), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
)
retired_keys = Table(  # key-encryption keys under which nothing may be wrapped any more
    "retired_keys",
    metadata,
    Column("kek_id", String(256), primary_key=True),
    Column("retired", Float, nullable=False),
)
key_copies = Table(  # see `radnode.storage.key_copy`
    "key_copies",
    metadata,
    Column("path", String(4096), primary_key=True),
    Column("written", Float, nullable=False),
    Column("is_current", Boolean, nullable=False),  # false: keys were destroyed or wrapped anew since
)


class KeyProvider(Protocol):
    """Whoever holds the key-encryption keys. Every call ends within a deadline; nothing that it returns is kept."""

    def keys(self) -> list[str]:
        """Return the ids of the keys that it knows of, oldest first; the last one is current.

        Raises:
            KeyUnavailable: it does not answer, or has none.
        """

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Return (id of the current key, `key` wrapped under it and bound to `context`); raises as `keys`."""

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return the key.

        Raises:
            KeyUnavailable: the provider does not answer, or will not use that key: it is revoked, or not there.
            SealBroken: the bytes were changed, or wrapped under another key.
        """

    def create(self) -> str | None:
        """Make a new key, current from now on, and return its id; None where that is the operator's to do."""

    def destroy(self, kek_id: str) -> bool:
        """Destroy a key that is not current; one that is not there is no error. False: that is the operator's to do."""


@dataclass(frozen=True, slots=True)
class StudyKey:
    """One study's data key."""

    key_id: bytes
    secret: bytes


class Rewrapped(NamedTuple):
    """What one batch of a rotation did: how many were wrapped anew, how many do not open, the last key id seen."""

    wrapped: int
    damaged: int
    last: bytes  # empty when there are no more


class _Kept(NamedTuple):
    """A study key in memory, which may be used until `until` (monotonic seconds)."""

    study: str
    key: StudyKey
    until: float


class StudyKeys:
    """The data keys of all studies, wrapped in the database, the recent ones open in memory.

    At most `CACHED_STUDIES` are open, each for at most `cache_seconds`: so long a study goes on while the provider is
    away, and so long it may go on when the provider has revoked the key-encryption key.
    """

    def __init__(
        self,
        engine: Engine,
        provider: KeyProvider,
        clock: Callable[[], float] = time.time,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._engine = engine
        self._provider = provider
        self._clock = clock
        self._cache_seconds = cache_seconds
        self._lock = threading.Lock()
        self._by_study: dict[str, _Kept] = {}
        self._by_id: dict[bytes, _Kept] = {}

    def of_study(self, study: str) -> StudyKey:
        """Return the key of a study (a pseudonym); it is made, and durable, at the first call.

        Raises:
            KeyUnavailable: the provider does not answer.
            StoreUnavailable: the database cannot be read or written now.
        """
        found = self._recall(self._by_study.get(study))
        return found or self._remember(study, self._load(study) or self._create(study))

    def of_id(self, key_id: bytes) -> StudyKey:
        """Return the key that a sealed object's header names.

        Raises:
            KeyUnavailable: the key was destroyed (the study was purged) or never was here.
            StoreUnavailable: the database cannot be read now.
        """
        found = self._recall(self._by_id.get(key_id))
        if found:
            return found
        with self._connection() as connection:
            row = connection.execute(select(study_keys).where(study_keys.c.key_id == key_id)).one_or_none()
        if row is None:
            raise KeyUnavailable("The key of this study is gone: the study was purged, or the database is another one.")
        return self._remember(row.study, self._open(row.key_id, row.kek_id, row.wrapped))

    def forget(self, key_id: bytes) -> None:
        """Keep a key in memory no longer: it was destroyed."""
        with self._lock:
            self._drop(self._by_id.get(key_id))

    def check(self) -> int:
        """Open one study key under each key-encryption key, and a new one; return how many study keys there are.

        Raises:
            KeyUnavailable, SealBroken: a key-encryption key is missing, damaged, or that of another node.
        """
        self._open(b"check", *self._wrap(bytes(KEY), b"check"))
        with self._connection() as connection:
            rows = connection.execute(select(study_keys).group_by(study_keys.c.kek_id)).all()
            count = connection.scalar(select(func.count()).select_from(study_keys)) or 0
        for row in rows:
            self._open(row.key_id, row.kek_id, row.wrapped)
        return count

    def rewrap(self, current: str, limit: int, after: bytes = b"") -> Rewrapped:
        """Wrap up to `limit` study keys with ids behind `after` under the current key, those that are under another.

        Each is opened under the old key, wrapped, opened under the new one and compared; then all are one commit. Who
        was purged meanwhile stays purged. What does not open is left as it is.

        Raises:
            KeyUnavailable: the provider does not answer; nothing of this batch was changed.
            StoreUnavailable: the database cannot be written now; nothing of this batch was changed.
        """
        wanted = select(study_keys).where(study_keys.c.kek_id != current, study_keys.c.key_id > after)
        with self._connection() as connection:
            rows = connection.execute(wanted.order_by(study_keys.c.key_id).limit(limit)).all()
        fresh, damaged = [], 0
        for row in rows:
            try:
                key = self._open(row.key_id, row.kek_id, row.wrapped)
                kek_id, wrapped = self._wrap(key.secret, key.key_id)
                if self._open(key.key_id, kek_id, wrapped) != key:
                    raise KeyUnavailable("The key provider gives back another key than it was given.")
            except SealBroken:
                damaged += 1
            else:
                fresh.append((row, kek_id, wrapped))
        with self._connection(writes=True) as connection:
            for kek_id in dict.fromkeys(kek_id for _, kek_id, _ in fresh):
                require_in_use(connection, kek_id)
            if fresh:
                connection.execute(update(key_copies).values(is_current=False))
            for row, kek_id, wrapped in fresh:
                same = (study_keys.c.key_id == row.key_id, study_keys.c.wrapped == row.wrapped)
                connection.execute(update(study_keys).where(*same).values(kek_id=kek_id, wrapped=wrapped))
        return Rewrapped(len(fresh), damaged, rows[-1].key_id if len(rows) == limit else b"")

    def _load(self, study: str) -> StudyKey | None:
        with self._connection() as connection:
            row = connection.execute(select(study_keys).where(study_keys.c.study == study)).one_or_none()
        return None if row is None else self._open(row.key_id, row.kek_id, row.wrapped)

    def _create(self, study: str) -> StudyKey:
        """Make a key; where another process was quicker, return that one's."""
        key_id, secret = secrets.token_bytes(16), secrets.token_bytes(KEY)
        kek_id, wrapped = self._wrap(secret, key_id)
        self._prove(kek_id)
        row = {"key_id": key_id, "study": study, "kek_id": kek_id, "wrapped": wrapped, "created": self._clock()}
        with self._connection(writes=True) as connection:
            require_in_use(connection, kek_id)
            connection.execute(insert(study_keys).values(row).on_conflict_do_nothing(index_elements=["study"]))
        reach("study-key-made")
        created = self._load(study)
        if created is None:
            raise KeyUnavailable("The key of a study was destroyed while it was made; try again.")
        return created

    def _prove(self, kek_id: str) -> None:
        """See that a key-encryption key opens what was wrapped under it before; nothing else may be wrapped under it.

        Two study keys are tried, so that one that was damaged keeps no image out.

        Raises:
            KeyUnavailable: the provider does not answer, or holds another key under that id.
        """
        newest = select(study_keys).where(study_keys.c.kek_id == kek_id).order_by(literal_column("rowid").desc())
        with self._connection() as connection:
            rows = connection.execute(newest.limit(2)).all()
        for row in rows:
            try:
                self._open(row.key_id, kek_id, row.wrapped)
            except SealBroken:
                continue
            return
        if rows:
            raise KeyUnavailable(f"The provider's {kek_id} is not the key that wrapped the study keys; see [keys].")

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
        with baton.waiting:
            return StudyKey(key_id, self._provider.unwrap(kek_id, wrapped, key_id))

    def _wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        with baton.waiting:
            return self._provider.wrap(key, context)

    def _recall(self, kept: _Kept | None) -> StudyKey | None:
        return kept.key if kept is not None and time.monotonic() < kept.until else None

    def _remember(self, study: str, key: StudyKey) -> StudyKey:
        now = time.monotonic()
        kept = _Kept(study, key, now + self._cache_seconds)
        with self._lock:
            self._drop(self._by_study.get(study))
            for oldest in list(self._by_study.values()):
                if len(self._by_study) < CACHED_STUDIES and now < oldest.until:
                    break  # they stand in the order in which their time ends
                self._drop(oldest)
            self._by_study[study] = kept
            self._by_id[key.key_id] = kept
        return key

    def _drop(self, kept: _Kept | None) -> None:
        if kept is not None:
            self._by_study.pop(kept.study, None)
            self._by_id.pop(kept.key.key_id, None)


def usage(connection: Connection) -> dict[str, int]:
    """Return how many study keys each key-encryption key wraps."""
    query = select(study_keys.c.kek_id, func.count()).group_by(study_keys.c.kek_id)
    return {kek_id: count for kek_id, count in connection.execute(query)}


def retired(connection: Connection) -> frozenset[str]:
    """Return the key-encryption keys that were retired."""
    return frozenset(connection.scalars(select(retired_keys.c.kek_id)))


def retire(connection: Connection, kek_id: str, now: float) -> None:
    """Say that nothing may be wrapped under a key any more; once more is no error."""
    row = {"kek_id": kek_id, "retired": now}
    connection.execute(insert(retired_keys).values(row).on_conflict_do_nothing())


def destroy(connection: Connection, study: str) -> bool:
    """Destroy the key of a study (a pseudonym); False where there is none. Nothing opens its objects any more."""
    connection.execute(update(key_copies).values(is_current=False))
    return bool(connection.execute(delete(study_keys).where(study_keys.c.study == study)).rowcount)


def require_in_use(connection: Connection, kek_id: str) -> None:
    """See, in the transaction that is to write what it wrapped, that a key-encryption key has not been retired.

    Raises:
        KeyUnavailable: it has; wrap again, under the key that is current now.
    """
    if connection.scalar(select(func.count()).where(retired_keys.c.kek_id == kek_id)):
        raise KeyUnavailable(f"The key-encryption key {kek_id} was retired at this moment; try again.")


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
