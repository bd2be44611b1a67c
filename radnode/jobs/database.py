"""The embedded database: SQLite with write-ahead log, every commit fsynced, one writer at a time.

Every write transaction of an engine waits for its turn (`write_lock`) before SQLite is asked, and gives the turn back
with its connection. A writer that knows nothing of turns is still met by SQLite's own lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnection

from radnode.errors import StoreUnavailable
from radnode.jobs.write_lock import WriteLock

BUSY_SECONDS = 10  # how long a writer waits for its turn, and then for SQLite's lock
# What the driver says of a file, what it says while a connection is prepared, and a pool with all connections in use.
_TROUBLE = (DatabaseError, sqlite3.DatabaseError, NoConnection)
_CALLER = (DataError, IntegrityError, ProgrammingError)  # what was asked for is wrong, and the database is well


_turns: WeakKeyDictionary[Engine, WriteLock] = WeakKeyDictionary()


def turn_of(engine: Engine) -> WriteLock:
    """Return the turn that every write transaction of an engine waits for."""
    return _turns[engine]


def open_database(path: Path) -> Engine:
    """Open, or make with 0600, the database file (and `.lock` beside it) and return its engine.

    Raises:
        StoreUnavailable: the file can be neither opened nor made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"The database {path} cannot be opened ({error.strerror}).") from error
    url = URL.create("sqlite", database=str(path))
    turn = WriteLock(path.with_name(f"{path.name}.lock"))
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    _turns[engine] = turn

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 sends no BEGIN of its own
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("writes", False):
            connection.exec_driver_sql("BEGIN")
            return
        turn.acquire(BUSY_SECONDS)
        cast(dict[str, bool], connection.connection.record_info)["turn"] = True
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @event.listens_for(engine, "checkin")
    def _end(_connection: Any, record: Any) -> None:
        if record.record_info.pop("turn", False):
            turn.release()

    return engine


def create_tables(engine: Engine, *schemas: MetaData) -> None:
    """Create what is missing of the given schemas."""
    with transaction(engine) as connection:
        for schema in schemas:
            schema.create_all(connection)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one write transaction: all of it is durable when the block ends, or none of it happened.

    Raises:
        StoreUnavailable: the database is locked, full or damaged; nothing was written.
    """
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection
    except _TROUBLE as error:
        if isinstance(error, _CALLER):
            raise
        raise StoreUnavailable("The database cannot be written now (locked, full, read-only or damaged).") from error


def forget_overwritten(engine: Engine) -> None:
    """Copy the write-ahead log into the database and empty it, so that what was deleted is in neither file.

    Where somebody reads at this moment, it is done as far as can be; SQLite does the rest by itself, later.
    """
    connection = engine.raw_connection()
    try:
        with contextlib.suppress(engine.dialect.loaded_dbapi.Error):
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Read a consistent state without keeping a writer waiting.

    Raises:
        StoreUnavailable: the database cannot be read.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except _TROUBLE as error:
        raise StoreUnavailable("The database cannot be read now (locked or damaged).") from error
