"""Statements of the busiest path, compiled once: building one anew costs twice what the database needs to run it.

The statement stays a Core construct, and its SQL is that of the engine's dialect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Insert, Select, Update
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection


class OpenTransaction(Protocol):
    """What runs a prepared insert: a `sqlalchemy.Connection`, or a `radnode.jobs.writer.Writer`, with one begun."""

    @property
    def connection(self) -> PoolProxiedConnection:
        """The driver's connection."""

    @property
    def dialect(self) -> Dialect:
        """Which SQL its database speaks."""


class Prepared:
    """One INSERT or UPDATE of the named columns, or one SELECT.

    Values, and those of its `bindparam`s, go to the driver as they are; no default is filled in.
    """

    def __init__(self, statement: Insert | Update | Select[Any], columns: Sequence[str]) -> None:
        self._statement = statement
        self._columns = list(columns)
        self._compiled: tuple[Dialect, str, list[str] | None] | None = None

    def run(self, tx: OpenTransaction, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run it with each of these rows, in their order, in the open transaction; return how many were new or changed.

        Raises:
            SQLAlchemyError: the database did not take them.
        """
        with self._cursor(tx) as (cursor, sql, order):
            values = [_ordered(row, order) for row in rows]
            if len(values) == 1:
                cursor.execute(sql, values[0])
            else:
                cursor.executemany(sql, values)
            return int(cursor.rowcount)

    def scalar(self, tx: OpenTransaction, values: Mapping[str, Any]) -> Any:
        """Return the first column of the first row that is found with these parameters; raises as `run`."""
        with self._cursor(tx) as (cursor, sql, order):
            cursor.execute(sql, _ordered(values, order))
            return cursor.fetchone()[0]

    @contextlib.contextmanager
    def _cursor(self, tx: OpenTransaction) -> Iterator[tuple[Any, str, list[str] | None]]:
        """Yield a cursor with the statement for it; what the driver raises is SQLAlchemy's."""
        compiled = self._compiled
        if compiled is None or compiled[0] is not tx.dialect:
            self._compiled = compiled = self._compile(tx.dialect)
        _, sql, order = compiled
        cursor, driver = tx.connection.cursor(), tx.dialect.loaded_dbapi
        try:
            yield cursor, sql, order
        except driver.Error as error:
            raise DBAPIError.instance(sql, None, error, driver.Error, hide_parameters=True) from error
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect) -> tuple[Dialect, str, list[str] | None]:
        """Return the SQL of a dialect and, where its parameters are numbered and not named, their order."""
        compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
        return dialect, compiled.string, compiled.positiontup


def _ordered(row: Mapping[str, Any], order: list[str] | None) -> Any:
    """Return the values as the driver wants them."""
    return row if order is None else tuple([row[name] for name in order])
