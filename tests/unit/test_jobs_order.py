"""Who is leased first: priorities with a share for those below, and turns that are fair among peers and studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rooms import Rooms

from radnode.jobs import turns
from radnode.jobs.database import transaction
from radnode.jobs.index import InstanceRow, add_instance
from radnode.jobs.queue import SHARE
from radnode.model import JobKind, Lease, Priority


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


class Line:
    """Images that peers push, and a worker that takes them."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.pushed: Counter[str] = Counter()

    def push(self, peer: str, study: str, count: int = 1, priority: Priority = Priority.ROUTINE) -> None:
        """Keep images of a study and enqueue their analyses; a subject is named study-1, study-2, ..."""
        with transaction(self.rooms.engine) as tx:
            for _ in range(count):
                self.pushed[study] += 1
                name = f"{study}-{self.pushed[study]}"
                row = InstanceRow(name, study, study, study, name.encode(), 1, peer, self.rooms.now)
                assert add_instance(tx, row)
                self.rooms.queue.add(tx, JobKind.ANALYSE, name, priority=priority)

    def lease(self, limit: int = 1) -> list[Lease]:
        return self.rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60, limit)

    def take(self, count: int) -> list[str]:
        """Lease one after the other and return the subjects."""
        return [one.subject for _ in range(count) for one in self.lease()]


@pytest.fixture
def line(rooms: Rooms) -> Line:
    return Line(rooms)


def test_single_image_does_not_wait_for_the_thousands_of_another_peer(line: Line) -> None:
    line.push("CT1", "a", 2000)
    assert line.take(1) == ["a-1"]
    line.push("CR1", "b")
    assert "b-1" in line.take(3)


def test_peers_that_both_have_many_waiting_are_served_in_turn(line: Line) -> None:
    line.push("CT1", "a", 100)
    line.push("CT2", "b", 100)
    served = Counter(subject[0] for subject in line.take(40))
    assert abs(served["a"] - served["b"]) <= 2


def test_single_image_does_not_wait_for_a_thousand_studies_of_another_peer(line: Line) -> None:
    for number in range(1000):
        line.push("ROUTER", f"a{number}")
    line.push("CR1", "b")
    assert "b-1" in line.take(3)


def test_study_does_not_wait_for_a_large_one_of_the_same_peer(line: Line) -> None:
    line.push("ROUTER", "a", 1000)
    line.push("ROUTER", "b", 3)
    assert {"b-1", "b-2", "b-3"} <= set(line.take(8))


def test_images_of_a_study_are_analysed_in_the_order_they_came(line: Line) -> None:
    line.push("CT1", "a", 5)
    line.push("CT2", "b", 5)
    assert [subject for subject in line.take(10) if subject[0] == "a"] == [f"a-{number}" for number in range(1, 6)]


def test_peers_that_come_at_every_moment_overtake_nobody_for_ever(line: Line) -> None:
    """Two peers that always have exactly one image waiting, each time of a new study, and use all there is."""
    line.push("CT1", "a", 50)
    taken: list[str] = []
    for number in range(300):
        line.push("CR1" if number % 2 else "CR2", f"b{number}")
        taken += line.take(1)
        if taken.count("a-50"):
            break
    assert "a-50" in taken
    assert len(taken) <= 151  # a third of what was taken


def test_turns_go_on_when_the_line_was_empty_and_what_is_given_back_is_first(line: Line) -> None:
    line.push("CT1", "a", 20)
    (held,) = line.lease()
    line.take(19)
    line.push("CT2", "b", 3)
    line.rooms.queue.release("worker", counted=False)
    assert line.take(1) == ["a-1"]
    assert held.subject == "a-1"


def test_postponed_image_comes_back_among_those_who_are_next(line: Line) -> None:
    line.push("CT1", "a", 200)
    (held,) = line.lease()
    line.take(100)
    with transaction(line.rooms.engine) as tx:
        line.rooms.queue.postpone(tx, held, 5, "word", counted=False)
    line.push("CR1", "b")
    assert "b-1" in line.take(3)
    line.rooms.now += 6
    assert "a-1" in line.take(3)


def test_stat_goes_before_everything_that_waits(line: Line) -> None:
    line.push("CT1", "a", 100)
    line.push("CT1", "b", 3, Priority.HIGH)
    line.push("CT1", "c", 2, Priority.STAT)
    assert line.take(5) == ["c-1", "c-2", "b-1", "b-2", "b-3"]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_routine_proceeds_while_stat_never_ends(line: Line, batch: int) -> None:
    line.push("CT1", "routine", 20)
    line.push("CT2", "high", 20, Priority.HIGH)
    taken: list[str] = []
    for number in range(600 // batch):
        line.push("ER", f"stat{number}", batch, Priority.STAT)
        taken += [one.subject for one in line.lease(batch)]
    served = Counter(subject.partition("-")[0].rstrip("0123456789") for subject in taken)
    assert served["routine"] == served["high"] == 20  # none of them waits for ever
    assert served["stat"] >= 0.8 * len(taken)  # and STAT pays no more than its share
    first = next(place for place, subject in enumerate(taken) if subject.startswith("routine"))
    assert first <= 2 * SHARE + 2 * batch


def test_share_of_those_below_is_taken_only_from_what_is_due(line: Line) -> None:
    line.push("CT1", "routine")
    (held,) = line.lease()
    with transaction(line.rooms.engine) as tx:
        line.rooms.queue.postpone(tx, held, 1000, "word")
    line.push("ER", "stat", 3 * SHARE, Priority.STAT)
    assert line.take(3 * SHARE) == [f"stat-{number}" for number in range(1, 3 * SHARE + 1)]


def test_turn_of_a_new_job_is_found_by_indexes_alone(line: Line) -> None:
    line.push("CT1", "a", 3)
    line.lease()
    with line.rooms.engine.connect() as connection:
        sql = turns.insert_analyses()._compile(connection.dialect)[1]
        plans = [
            str(row[-1])
            for row in connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {sql}", tuple("x" for _ in range(sql.count("?")))
            )
        ]
    assert not [plan for plan in plans if plan.startswith("SCAN")], plans
    for index in ("jobs_study", "jobs_opens", "jobs_ready"):
        assert any(index in plan for plan in plans), plans
