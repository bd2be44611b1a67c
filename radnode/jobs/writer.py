"""Write transactions on a connection that is kept: for the busiest path alone.

What SQLAlchemy does around a transaction (taking a connection from the pool, events, a context for each statement)
costs three times what SQLite needs for the commit of one image. Statements come through `radnode.prepared`, which needs
only the driver's connection and the dialect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.pool import PoolProxiedConnection

from radnode import baton
from radnode.errors import StoreUnavailable
from radnode.jobs.database import BUSY_SECONDS, turn_of


class Writer:
    """One connection to an engine's database; used by one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = turn_of(engine)
        self._connection: PoolProxiedConnection | None = None

    @property
    def dialect(self) -> Dialect:
        """The dialect that statements are compiled for."""
        return self._engine.dialect

    @property
    def connection(self) -> PoolProxiedConnection:
        """The driver's connection, opened at its first use."""
        if self._connection is None:
            self._connection = self._engine.raw_connection()
        return self._connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Writer]:
        """Run one write transaction: all of it is durable when the block ends, or none of it happened.

        Raises:
            StoreUnavailable: the database is locked, full or damaged; nothing was written.
        """
        driver = self.dialect.loaded_dbapi
        try:
            connection = self.connection  # before the turn: those who hold the pool's last ones may be waiting for it
            self._turn.acquire(BUSY_SECONDS)
            try:
                connection.cursor().execute("BEGIN IMMEDIATE")
                yield self
                with baton.waiting:
                    connection.commit()
            except BaseException:
                self._drop()
                raise
            finally:
                self._turn.release()
        except IntegrityError:
            raise
        except (driver.Error, DBAPIError, NoConnection) as error:
            raise StoreUnavailable("The database cannot be written now (locked, full or damaged).") from error

    def _drop(self) -> None:
        """Roll back and close: the next transaction begins on a connection about which nothing is in doubt."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self.dialect.loaded_dbapi.Error):
                connection.rollback()
            connection.invalidate()
