"""Arrivals: what was promised is there with job and entry, and what one arrival breaks the others do not share."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from support.arrivals import arrival, queued
from support.rooms import Rooms

from radnode.arrivals import Arrival, Arrivals
from radnode.errors import AuditError, RadnodeError, StoreUnavailable
from radnode.jobs import database
from radnode.jobs.database import transaction
from radnode.jobs.index import find_instance

Outcome = bool | Exception


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    rooms.close()


def together(rooms: Rooms, arrivals: list[Arrival]) -> tuple[list[Outcome], int]:
    """Commit these in one group behind a first one; return their outcomes and how many transactions there were."""
    desk, outcomes, begun = Arrivals(rooms.stores), dict[int, Outcome](), []
    in_first, go_on = threading.Event(), threading.Event()
    real = database.WriteLock.acquire

    def acquire(lock: database.WriteLock, seconds: float) -> None:
        begun.append(1)
        if len(begun) == 1:
            in_first.set()
            assert go_on.wait(10)
        real(lock, seconds)

    def commit(number: int, it: Arrival) -> None:
        try:
            outcomes[number] = desk.commit(it)
        except (RadnodeError, IntegrityError) as error:
            outcomes[number] = error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database.WriteLock, "acquire", acquire)
        threads = [threading.Thread(target=commit, args=(-1, arrival("first" * 6)))]
        threads[0].start()
        assert in_first.wait(10)
        for number, it in enumerate(arrivals):
            threads.append(threading.Thread(target=commit, args=(number, it)))
            threads[-1].start()
            while len(desk._waiting) < number + 1:
                assert threads[-1].is_alive()
        go_on.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert outcomes.pop(-1) is True
    return [outcomes[number] for number in range(len(arrivals))], len(begun) - 1


def test_commit_means_instance_job_and_entry_are_durable(rooms: Rooms) -> None:
    it = arrival("a" * 32)
    assert Arrivals(rooms.stores).commit(it) is True
    rooms.engine.dispose()
    with transaction(rooms.engine) as tx:
        assert find_instance(tx, "a" * 32) == it.row
    assert queued(rooms) == ["a" * 32]
    assert [entry["instance"] for entry in rooms.entries()] == ["a" * 32]
    assert rooms.rung == ["worker"]


def test_without_enqueue_there_is_no_job_and_the_worker_sleeps_on(rooms: Rooms) -> None:
    assert Arrivals(rooms.stores).commit(arrival("a" * 32, enqueue=False)) is True
    assert rooms.count("jobs") == 0
    assert rooms.rung == []


def test_known_instance_writes_nothing_and_rings_nobody(rooms: Rooms) -> None:
    desk, it = Arrivals(rooms.stores), arrival("a" * 32)
    desk.commit(it)
    rooms.rung.clear()
    assert desk.commit(it) is False
    assert desk.commit(arrival("a" * 32)) is False
    assert [rooms.count(table) for table in ("instances", "jobs", "audit_entries")] == [1, 1, 1]
    assert rooms.rung == []
    with transaction(rooms.engine) as tx:
        assert find_instance(tx, "a" * 32) == it.row


def test_who_waits_is_committed_together_in_the_order_they_came(rooms: Rooms) -> None:
    names = [f"{number:032x}" for number in range(12)]
    outcomes, transactions = together(rooms, [arrival(name) for name in names])
    assert outcomes == [True] * 12
    assert transactions == 1
    assert [entry["instance"] for entry in rooms.entries()][1:] == names
    assert queued(rooms)[1:] == names
    assert rooms.rung == ["worker"] * 2


def test_same_instance_twice_in_a_group_is_kept_once_the_first_time(rooms: Rooms) -> None:
    one, two = arrival("a" * 32), arrival("a" * 32)
    outcomes, transactions = together(rooms, [one, two, arrival("b" * 32)])
    assert (outcomes, transactions) == ([True, False, True], 1)
    with transaction(rooms.engine) as tx:
        assert find_instance(tx, "a" * 32) == one.row
    assert [rooms.count(table) for table in ("instances", "jobs", "audit_entries")] == [3, 3, 3]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_one_arrival_breaks_its_neighbours_do_not_share(rooms: Rooms, place: int) -> None:
    good = [arrival("a" * 32), arrival("b" * 32)]
    bad = arrival("c" * 32)
    bad = replace(bad, row=replace(bad.row, peer=None))
    outcomes, _ = together(rooms, [*good[:place], bad, *good[place:]])
    assert isinstance(outcomes.pop(place), IntegrityError)
    assert outcomes == [True, True]
    assert [entry["instance"] for entry in rooms.entries()][1:] == ["a" * 32, "b" * 32]
    assert queued(rooms)[1:] == ["a" * 32, "b" * 32]


def test_entry_without_json_form_fails_alone_and_before_anybody_waits_for_it(rooms: Rooms) -> None:
    bad = arrival("c" * 32)
    bad = replace(bad, record=replace(bad.record, identity={"PatientID": b"raw"}))
    with pytest.raises(AuditError):
        Arrivals(rooms.stores).commit(bad)
    assert [rooms.count(table) for table in ("instances", "jobs", "audit_entries")] == [0, 0, 0]
    assert rooms.rung == []


def test_audit_table_that_is_gone_is_an_audit_error_for_each_and_nothing_is_kept(rooms: Rooms) -> None:
    with transaction(rooms.engine) as tx:
        tx.exec_driver_sql("ALTER TABLE audit_entries RENAME TO elsewhere")
    desk = Arrivals(rooms.stores)
    for name in ("a" * 32, "b" * 32):
        with pytest.raises(AuditError):
            desk.commit(arrival(name))
    assert [rooms.count(table) for table in ("instances", "jobs")] == [0, 0]


def test_locked_database_is_said_to_everybody_once_and_is_no_end(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    rooms.engine.dispose()
    stores = replace(rooms.stores, engine=database.open_database(rooms.folder / "node.db"))
    desk, failed = Arrivals(stores), list[str]()
    lock = sqlite3.connect(rooms.folder / "node.db")
    lock.execute("BEGIN IMMEDIATE")

    def commit(number: int) -> None:
        with pytest.raises(StoreUnavailable):
            desk.commit(arrival(f"{number:032x}"))
        failed.append(threading.current_thread().name)

    run_all([lambda number=number: commit(number) for number in range(8)])
    lock.close()
    assert len(set(failed)) == 8
    assert rooms.count("instances") == 0
    assert desk.commit(arrival("a" * 32)) is True
    stores.engine.dispose()


def test_interrupted_leader_leaves_nobody_waiting(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, outcomes = Arrivals(rooms.stores), list[object]()
    real = Arrivals._write

    def interrupted(self: Arrivals, group: list[object]) -> None:
        monkeypatch.setattr(Arrivals, "_write", real)
        while len(desk._waiting) < 2:
            pass
        raise KeyboardInterrupt

    def commit(name: str) -> None:
        outcomes.append(desk.commit(arrival(name)))

    monkeypatch.setattr(Arrivals, "_write", interrupted)
    threads = [threading.Timer(0.05, commit, [name * 32]) for name in "ab"]
    for thread in threads:
        thread.start()
    with pytest.raises(KeyboardInterrupt):
        desk.commit(arrival("c" * 32))
    for thread in threads:
        thread.join(10)
    assert outcomes == [True, True]
    assert rooms.count("instances") == 2


def test_first_commits_of_many_new_studies_do_not_wait_for_each_others_connections(rooms: Rooms) -> None:
    desk, outcomes, together = Arrivals(rooms.stores), list[bool](), threading.Barrier(40)

    def push(name: str) -> None:
        together.wait(10)
        rooms.keys.of_study(name)  # holds one of the pool's connections while it waits for its turn to write
        outcomes.append(desk.commit(arrival(name)))

    run_all([lambda number=number: push(f"{number:032x}") for number in range(40)])
    assert outcomes == [True] * 40


def test_pool_without_a_free_connection_is_store_unavailable(rooms: Rooms) -> None:
    engine = database.open_database(rooms.folder / "node.db")
    engine.pool._timeout = 0.1
    held = [engine.connect() for _ in range(15)]
    desk = Arrivals(replace(rooms.stores, engine=engine))
    with pytest.raises(StoreUnavailable):
        desk.commit(arrival("a" * 32))
    for connection in held:
        connection.close()
    assert desk.commit(arrival("a" * 32)) is True
    engine.dispose()


def test_many_threads_at_once_lose_nothing_and_number_without_gap(rooms: Rooms) -> None:
    desk = Arrivals(rooms.stores)
    outcomes: dict[str, list[bool]] = {f"{number:032x}": [] for number in range(120)}

    def push(start: int) -> None:
        for number in range(start, start + 30):  # every instance is sent by two threads
            name = f"{number % 120:032x}"
            outcomes[name].append(desk.commit(arrival(name)))

    run_all([lambda start=start: push(start) for start in range(0, 120, 15)])
    assert all(sorted(found) == [False, True] for found in outcomes.values())
    assert sorted(queued(rooms)) == sorted(outcomes)
    assert sorted(entry["instance"] for entry in rooms.entries()) == sorted(outcomes)
    with rooms.engine.connect() as connection:
        numbers = connection.exec_driver_sql("SELECT seq FROM audit_entries ORDER BY seq").scalars().all()
    assert numbers == list(range(1, 121))


def run_all(calls: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own to the end."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
