"""The queue: what the state machine in tests/property does not say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert
from sqlalchemy.engine.interfaces import Dialect
from support.rooms import Rooms

from radnode.errors import NotFoundError, StaleLease
from radnode.jobs.database import transaction
from radnode.jobs.schema import jobs
from radnode.model import JobKind, JobState
from radnode.prepared import Prepared


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def add(
    rooms: Rooms, *subjects: str, kind: JobKind = JobKind.ANALYSE, destination: str = "", priority: int = 0
) -> None:
    with transaction(rooms.engine) as tx:
        for subject in subjects:
            rooms.queue.add(tx, kind, subject, destination, priority)


def lease(rooms: Rooms, limit: int = 8) -> list[str]:
    return [one.subject for one in rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60, limit)]


def plans(rooms: Rooms, work: Any) -> list[str]:
    """The query plan of every statement that `work` runs on the jobs table."""
    statements: list[tuple[str, Any]] = []
    listener = lambda _c, _u, statement, parameters, *_: statements.append((statement, parameters))  # noqa: E731
    event.listen(rooms.engine, "before_cursor_execute", listener)
    compiled = Prepared._compile  # what SQLAlchemy does not run: each is compiled at its first use of an engine

    def compiling(statement: Prepared, dialect: Dialect) -> tuple[Dialect, str, list[str] | None]:
        result = compiled(statement, dialect)
        statements.append((result[1], (None,) * len(result[2] or ())))
        return result

    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Prepared, "_compile", compiling)
            work()
    finally:
        event.remove(rooms.engine, "before_cursor_execute", listener)
    found = []
    with rooms.engine.connect() as connection:
        for statement, parameters in statements:
            if re.match(r"SELECT|UPDATE|DELETE", statement) and not isinstance(parameters, list):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                found += [str(row[-1]) for row in rows]
    return found


def finished(rooms: Rooms, count: int) -> None:
    done = {"kind": "analyse", "state": "done", "due": 0.0, "created": 0.0, "updated": 0.0}
    with transaction(rooms.engine) as tx:
        tx.execute(insert(jobs), [{**done, "subject": f"old-{number}"} for number in range(count)])


def test_lease_finish_and_next_due_touch_no_finished_job(rooms: Rooms) -> None:
    finished(rooms, 20_000)
    add(rooms, "new")

    def work() -> None:
        (held,) = rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60, 8)
        with transaction(rooms.engine) as tx:
            rooms.queue.finish(tx, held)
        rooms.queue.next_due(JobKind.ANALYSE)
        rooms.queue.release("worker")

    found = plans(rooms, work)
    assert any("jobs_ready" in plan for plan in found)
    assert any("jobs_leased" in plan for plan in found)
    assert any("PRIMARY KEY" in plan for plan in found)
    for plan in found:
        if plan.startswith("SCALAR SUBQUERY"):  # a heading; its own steps follow
            continue
        assert plan.startswith("SEARCH") or "USING INDEX jobs_leased" in plan or "USING INDEX jobs_ready" in plan, plan
        assert "TEMP B-TREE" not in plan


def test_listing_of_what_is_not_done_ends_although_much_is_done(rooms: Rooms) -> None:
    finished(rooms, 2000)
    add(rooms, "new")
    states = [state for state in JobState if state is not JobState.DONE]
    assert [row.subject for row in rooms.queue.listing(states)] == ["new"]
    assert rooms.queue.counts() == {(JobKind.ANALYSE, JobState.DONE): 2000, (JobKind.ANALYSE, JobState.READY): 1}


def test_analysis_that_was_tried_before_is_leased_alone(rooms: Rooms) -> None:
    add(rooms, "poison", "neighbour")
    assert lease(rooms) == ["poison", "neighbour"]
    rooms.queue.release("worker")
    rooms.now += 1
    add(rooms, "fresh", "fresher")
    assert [lease(rooms) for _ in range(4)] == [["poison"], ["neighbour"], ["fresh", "fresher"], []]


def test_higher_priority_goes_first_then_who_waited_longest(rooms: Rooms) -> None:
    add(rooms, "old")
    rooms.now += 1
    add(rooms, "new")
    add(rooms, "urgent", priority=5)
    assert lease(rooms) == ["urgent", "old", "new"]


def test_deliveries_of_one_destination_do_not_show_in_another(rooms: Rooms) -> None:
    add(rooms, "r1", kind=JobKind.DELIVER, destination="pacs")
    add(rooms, "r1", kind=JobKind.DELIVER, destination="archive")
    (held,) = rooms.queue.lease(JobKind.DELIVER, "deliver:1", 60, 8, "archive")
    assert (held.destination, held.subject) == ("archive", "r1")


def test_lease_that_ran_out_but_passed_to_nobody_may_still_finish(rooms: Rooms) -> None:
    add(rooms, "slow")
    (held,) = rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60)
    rooms.now += 3600
    with transaction(rooms.engine) as tx:
        rooms.queue.finish(tx, held)
    assert rooms.queue.show(held.job_id).state is JobState.DONE


def test_stale_lease_rolls_back_everything_of_its_transaction(rooms: Rooms) -> None:
    add(rooms, "slow")
    (stale,) = rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60)
    rooms.now += 61
    (held,) = rooms.queue.lease(JobKind.ANALYSE, "worker:2", 60)
    assert held.attempt == 2
    with pytest.raises(StaleLease), transaction(rooms.engine) as tx:
        rooms.queue.add(tx, JobKind.DELIVER, "result", "pacs")
        rooms.queue.finish(tx, stale)
    assert rooms.count("jobs") == 1
    assert rooms.queue.show(held.job_id).state is JobState.LEASED


def test_role_whose_name_begins_another_releases_only_its_own(rooms: Rooms) -> None:
    add(rooms, "a")
    rooms.queue.lease(JobKind.ANALYSE, "worker_2:1", 60)
    assert rooms.queue.release("worker") == 0
    assert rooms.queue.release("worker%") == 0
    assert rooms.queue.release("worker_2") == 1


def test_work_that_was_no_attempt_is_not_counted(rooms: Rooms) -> None:
    add(rooms, "a")
    (held,) = rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60)
    with transaction(rooms.engine) as tx:
        rooms.queue.postpone(tx, held, 0, "KeyUnavailable", counted=False)
    assert rooms.queue.show(held.job_id).attempts == 0
    (held,) = rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60)
    assert rooms.queue.release("worker:1", counted=False) == 1
    assert rooms.queue.show(held.job_id).attempts == 0


def test_repeated_job_waits_behind_those_that_were_there_first(rooms: Rooms) -> None:
    add(rooms, "seen", priority=20)
    [one] = rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60)
    with transaction(rooms.engine) as tx:
        assert rooms.queue.repeat(tx, JobKind.ANALYSE, "seen") is None  # it is being done
        rooms.queue.finish(tx, one)
    add(rooms, "new", "newer")
    with transaction(rooms.engine) as tx:
        row = rooms.queue.repeat(tx, JobKind.ANALYSE, "seen")
        assert row is not None
        assert (row.state, row.attempts, row.priority) == ("ready", 0, 0)
        assert rooms.queue.repeat(tx, JobKind.ANALYSE, "seen") is None
        assert rooms.queue.repeat(tx, JobKind.ANALYSE, "never enqueued") is not None
    assert lease(rooms) == ["new", "newer", "seen", "never enqueued"]


def test_job_that_is_not_there_is_not_found(rooms: Rooms) -> None:
    with pytest.raises(NotFoundError):
        rooms.queue.show(1)
    for change in (rooms.queue.retry, rooms.queue.discard):
        with pytest.raises(NotFoundError), transaction(rooms.engine) as tx:
            change(tx, 1)
