"""The embedded database: all or nothing, private, and honest about its troubles."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError
from support.rooms import modes

from radnode.errors import StoreUnavailable
from radnode.jobs import database, schema
from radnode.jobs.database import create_tables, open_database, reading, transaction
from radnode.jobs.queue import Queue
from radnode.jobs.schema import jobs
from radnode.model import JobKind


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    found = open_database(tmp_path / "node.db")
    create_tables(found, schema.metadata)
    yield found
    found.dispose()


def count(engine: Engine) -> int:
    with reading(engine) as tx:
        return tx.scalar(select(func.count()).select_from(jobs)) or 0


def test_every_commit_is_synced_and_every_file_is_private(engine: Engine, tmp_path: Path) -> None:
    with transaction(engine) as tx:
        Queue(engine).add(tx, JobKind.ANALYSE, "a")
        pragmas = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    before = os.umask(0)
    try:
        other = open_database(tmp_path / "other.db")
        create_tables(other, schema.metadata)
    finally:
        os.umask(before)
    found = list(tmp_path.glob("*.db*"))
    assert len(found) >= 4
    assert modes(found) == {0o600}
    other.dispose()


def test_exception_in_a_transaction_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), transaction(engine) as tx:
        Queue(engine).add(tx, JobKind.ANALYSE, "a")
        raise ZeroDivisionError
    assert count(engine) == 0


def test_locked_database_is_store_unavailable_for_writers_and_readable_meanwhile(
    engine: Engine, tmp_path: Path
) -> None:
    lock = sqlite3.connect(tmp_path / "node.db")
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable), transaction(engine):
        pass
    assert count(engine) == 0
    lock.close()
    with transaction(engine) as tx:
        Queue(engine).add(tx, JobKind.ANALYSE, "a")
    assert count(engine) == 1


def test_locked_database_is_store_unavailable_at_the_first_connection_too(engine: Engine, tmp_path: Path) -> None:
    engine.dispose()
    lock = sqlite3.connect(tmp_path / "node.db")
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    for room in (transaction, reading):
        with pytest.raises(StoreUnavailable), room(engine) as tx:
            tx.execute(select(jobs))
    lock.close()


def test_file_that_is_no_database_is_store_unavailable(tmp_path: Path) -> None:
    (tmp_path / "node.db").write_bytes(b"this is no database " * 100)
    engine = open_database(tmp_path / "node.db")
    for room in (transaction, reading):
        with pytest.raises(StoreUnavailable), room(engine) as tx:
            tx.execute(select(jobs))
    engine.dispose()


def test_folder_that_is_not_there_is_store_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        open_database(tmp_path / "missing" / "node.db")


def test_what_the_caller_broke_is_not_blamed_on_the_disk(engine: Engine) -> None:
    with pytest.raises(IntegrityError), transaction(engine) as tx:
        tx.exec_driver_sql("INSERT INTO jobs (kind, subject) VALUES ('a', 'b')")


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "caf\u00e9"])
def test_data_folder_of_any_name_holds_the_database(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    engine = open_database(tmp_path / name / "node.db")
    create_tables(engine, schema.metadata)
    engine.dispose()
    assert (tmp_path / name / "node.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_more_threads_than_connections_wait_and_are_never_an_unknown_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.pool, "_timeout", 0.05)
    stop, holding = threading.Event(), threading.Barrier(16)

    def hold() -> None:
        with reading(engine) as tx:
            tx.execute(select(jobs))
            holding.wait(10)
            stop.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(15)]
    for thread in threads:
        thread.start()
    holding.wait(10)
    try:
        with pytest.raises(StoreUnavailable), transaction(engine):
            pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
