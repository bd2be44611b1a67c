"""The embedded database: SQLite with write-ahead log, every commit fsynced, one writer at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import OperationalError

from radnode.errors import StoreUnavailable

BUSY_SECONDS = 10


def open_database(path: Path) -> Engine:
    """Open, or make with 0600, the database file and return its engine."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 sends no BEGIN of its own
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

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
    except OperationalError as error:
        raise StoreUnavailable("The database cannot be written now (locked, full or read-only).") from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Read a consistent state without keeping a writer waiting.

    Raises:
        StoreUnavailable: the database cannot be read.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise StoreUnavailable("The database cannot be read now.") from error
