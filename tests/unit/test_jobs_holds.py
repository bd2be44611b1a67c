"""What an operator holds, what a clock that is set back does, and what the death of a node costs a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rooms import Rooms

from radnode.jobs.database import transaction
from radnode.jobs.holds import Hold, held, hold, let_go
from radnode.jobs.queue import MAX_INTERRUPTED
from radnode.model import JobKind, Lease


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def add(rooms: Rooms, *subjects: str, kind: JobKind = JobKind.ANALYSE, destination: str = "") -> None:
    with transaction(rooms.engine) as tx:
        rooms.queue.add_all(tx, kind, subjects, destination)


def lease(rooms: Rooms, limit: int = 8) -> list[Lease]:
    return rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60, limit)


def test_held_stage_leases_nothing_and_the_other_one_goes_on(rooms: Rooms) -> None:
    add(rooms, "image")
    add(rooms, "result", kind=JobKind.DELIVER, destination="pacs")
    with transaction(rooms.engine) as tx:
        assert hold(tx, Hold.ANALYSE, rooms.now)
        assert not hold(tx, Hold.ANALYSE, rooms.now + 1)
    assert held(rooms.engine) == {Hold.ANALYSE: rooms.now}
    assert lease(rooms) == []
    assert rooms.queue.next_due(JobKind.ANALYSE) is None  # nobody polls for what is held
    assert len(rooms.queue.lease(JobKind.DELIVER, "deliver:1", 60, 8, "pacs")) == 1
    with transaction(rooms.engine) as tx:
        assert let_go(tx, Hold.ANALYSE)
        assert not let_go(tx, Hold.ANALYSE)
    assert [one.subject for one in lease(rooms)] == ["image"]


def test_what_is_leased_when_its_stage_is_held_can_be_finished(rooms: Rooms) -> None:
    add(rooms, "image")
    (one,) = lease(rooms)
    with transaction(rooms.engine) as tx:
        hold(tx, Hold.ANALYSE, rooms.now)
        rooms.queue.finish(tx, one)
    assert rooms.count("jobs WHERE state = 'done'") == 1


def test_row_26_what_waits_does_not_wait_for_the_hour_that_the_clock_went_back(rooms: Rooms) -> None:
    add(rooms, "waiting", "postponed")
    first, second = lease(rooms)
    with transaction(rooms.engine) as tx:
        rooms.queue.postpone(tx, first, 0, "word", counted=False)
        rooms.queue.postpone(tx, second, 30, "word", counted=False)
    rooms.now -= 3600
    assert {one.subject for one in lease(rooms)} == {"waiting", "postponed"}


def test_row_26_lease_keeps_its_term_when_the_clock_goes_back_and_ends_no_hour_later(rooms: Rooms) -> None:
    add(rooms, "image")
    lease(rooms)
    rooms.now -= 3600
    assert lease(rooms) == []
    rooms.now += 59
    assert lease(rooms) == []  # nobody else took it while it was being worked on
    rooms.now += 2
    (again,) = lease(rooms)
    assert again.attempt == 2


def test_row_26_process_that_starts_after_the_jump_sees_it_too(rooms: Rooms, tmp_path: Path) -> None:
    add(rooms, "image")
    rooms.now -= 3600
    again = Rooms(tmp_path)
    again.now = rooms.now
    assert [one.subject for one in lease(again)] == ["image"]
    again.close()


def test_job_held_at_many_deaths_of_the_whole_node_has_no_attempt_against_it(rooms: Rooms) -> None:
    add(rooms, "image")
    for _ in range(MAX_INTERRUPTED):
        (one,) = lease(rooms)
        assert one.attempt == 1
        assert rooms.queue.recover("worker") == 1
    (one,) = lease(rooms)
    rooms.queue.recover("worker")
    (one,) = lease(rooms)
    assert one.attempt == 2  # it was there every time: from now on it is suspected


def test_death_of_the_worker_alone_is_an_attempt(rooms: Rooms) -> None:
    add(rooms, "image")
    lease(rooms)
    rooms.queue.release("worker:1")
    (one,) = lease(rooms)
    assert one.attempt == 2


def test_waiting_counts_no_further_than_asked_and_nothing_that_is_finished(rooms: Rooms) -> None:
    add(rooms, "a", "b", "c", "d")
    (one, *_) = lease(rooms, 1)
    with transaction(rooms.engine) as tx:
        rooms.queue.finish(tx, one)
    assert rooms.queue.waiting(JobKind.ANALYSE, 100) == 3
    assert rooms.queue.waiting(JobKind.ANALYSE, 2) == 2
