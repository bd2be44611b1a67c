"""The completion of series on a real database: one job each, made once, in time, and again for what comes later."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rooms import Rooms

from radnode.jobs.completion import BUSY_SECONDS, Completion, subject_of
from radnode.jobs.database import transaction
from radnode.jobs.index import InstanceRow, add_instance
from radnode.jobs.series import find_series, images_of
from radnode.model import JobKind, JobState
from radnode.settings import CompletionSettings

QUIET, FORCE = 20.0, 100.0
NAME, STUDY = "a" * 32, "b" * 32


class Desk:
    """Rooms in which images arrive and are looked at."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.rooms = Rooms(folder)
        found = CompletionSettings(**{"quiet_seconds": QUIET, "force_seconds": FORCE, **settings})  # type: ignore[arg-type]
        self.completion = Completion(self.rooms.engine, self.rooms.queue, found, self.rooms.clock)

    def arrive(
        self, count: int = 1, *, study: str = STUDY, announced: int | None = None, looked_at: bool = True
    ) -> None:
        for _ in range(count):
            names = {"instance": secrets.token_hex(16), "series": NAME, "study": study, "patient": "c" * 32}
            row = InstanceRow(**names, object_id=secrets.token_bytes(16), size=1, peer="CT", received=self.rooms.now)
            with transaction(self.rooms.engine) as tx:
                add_instance(tx, row)
                if looked_at:
                    self.completion.touch(tx, row, announced)

    def wait(self, seconds: float) -> None:
        self.rooms.now += seconds

    def decide(self) -> list[tuple[int, int]]:
        """Return generation and number of images of what was decided."""
        return [(done.generation, done.images) for done in self.completion.decide()]

    def work(self) -> None:
        for lease in self.rooms.queue.lease(JobKind.SERIES, "worker:1", 60.0):
            with transaction(self.rooms.engine) as tx:
                self.rooms.queue.finish(tx, lease)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.rooms.close()


def test_pauses_shorter_than_the_quiet_time_make_one_job(desk: Desk) -> None:
    for _ in range(3):
        desk.arrive(100)
        desk.wait(QUIET - 1)
        assert desk.decide() == []
    desk.wait(1)
    assert desk.decide() == [(1, 300)]
    assert desk.decide() == []
    [job] = desk.rooms.queue.listing(list(JobState))
    assert (job.kind, job.subject) == (JobKind.SERIES, subject_of(NAME, 1))
    assert desk.completion.waiting() == []


def test_image_that_nobody_looked_at_yet_keeps_the_series_waiting_and_is_in_the_job(desk: Desk) -> None:
    desk.arrive(2)
    desk.wait(QUIET - 1)
    desk.arrive(1, looked_at=False)  # the worker is behind
    desk.wait(2)
    assert desk.decide() == []
    desk.wait(QUIET)
    assert desk.decide() == [(1, 3)]


def test_next_look_is_when_the_series_can_be_ready(desk: Desk) -> None:
    assert desk.completion.next_due() is None
    desk.arrive()
    start = desk.rooms.now
    assert desk.completion.next_due() == start + QUIET
    desk.wait(5)
    desk.arrive()
    desk.wait(QUIET - 5)
    assert desk.decide() == []
    assert desk.completion.next_due() == start + 5 + QUIET


def test_series_that_is_never_quiet_is_forced_again_and_again(desk: Desk) -> None:
    found = []
    for _ in range(25):
        desk.arrive()
        desk.wait(10)
        found += desk.decide()
        desk.work()
    assert found == [(1, 10), (2, 20)]


def test_announced_number_completes_at_once_also_when_it_is_reached_late(desk: Desk) -> None:
    desk.arrive(4, announced=6)
    assert desk.decide() == []
    desk.wait(QUIET)
    assert desk.decide() == [(1, 4)]
    desk.work()
    desk.arrive(2, announced=6)
    assert desk.decide() == [(2, 6)]


@pytest.mark.parametrize("lie", [2, 400])
def test_announced_number_that_lies_loses_nothing(desk: Desk, lie: int) -> None:
    desk.arrive(3, announced=lie)
    assert desk.decide() == []
    desk.wait(QUIET)
    assert desk.decide() == [(1, 3)]
    desk.work()
    desk.arrive(1, announced=lie)
    assert desk.decide() == []
    desk.wait(QUIET)
    assert desk.decide() == [(2, 4)]


def test_configured_number_completes_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, expected_instances=3)
    desk.arrive(2)
    assert desk.decide() == []
    desk.arrive(1)
    assert desk.decide() == [(1, 3)]
    desk.rooms.close()


def test_next_job_waits_for_the_end_of_the_last_one(desk: Desk) -> None:
    desk.arrive(2)
    desk.wait(QUIET)
    assert desk.decide() == [(1, 2)]
    desk.arrive()
    desk.wait(QUIET)
    assert desk.decide() == []  # its job waits
    [lease] = desk.rooms.queue.lease(JobKind.SERIES, "worker:1", 60.0)
    desk.wait(BUSY_SECONDS)
    assert desk.decide() == []  # it is being done
    with transaction(desk.rooms.engine) as tx:
        desk.rooms.queue.bury(tx, lease, "model_raised")
    desk.wait(BUSY_SECONDS)
    assert desk.decide() == [(2, 3)]


def test_images_of_a_generation_never_change_and_older_jobs_are_no_more(desk: Desk) -> None:
    desk.arrive(2)
    desk.wait(QUIET)
    desk.decide()
    desk.arrive(3)  # before anybody did the job
    with desk.rooms.engine.connect() as connection:
        first = find_series(connection, subject_of(NAME, 1))
        assert first is not None
        assert len(images_of(connection, first)) == 2
    desk.work()
    desk.wait(QUIET)
    assert desk.decide() == [(2, 5)]
    with desk.rooms.engine.connect() as connection:
        assert find_series(connection, subject_of(NAME, 1)) is None
        second = find_series(connection, subject_of(NAME, 2))
        assert second is not None
        assert len(images_of(connection, second)) == 5
        assert find_series(connection, "nonsense.0") is None


def test_one_series_uid_in_two_studies_is_two_series(desk: Desk) -> None:
    desk.arrive(2)
    desk.arrive(3, study="d" * 32)
    desk.wait(QUIET)
    assert sorted(desk.decide()) in ([(1, 2), (2, 3)], [(1, 3), (2, 2)])
    subjects = {job.subject for job in desk.rooms.queue.listing(list(JobState))}
    with desk.rooms.engine.connect() as connection:
        rows = [find_series(connection, subject) for subject in subjects]
        assert {row.study: len(images_of(connection, row)) for row in rows if row} == {STUDY: 2, "d" * 32: 3}


def test_clock_that_goes_back_an_hour_costs_one_quiet_time(desk: Desk) -> None:
    desk.arrive(3)
    desk.wait(-3600)
    assert desk.decide() == []
    desk.wait(QUIET)
    assert desk.decide() == [(1, 3)]


def test_clock_that_goes_forward_completes_early_and_loses_nothing(desk: Desk) -> None:
    desk.arrive(3)
    desk.wait(3600)
    assert desk.decide() == [(1, 3)]
    desk.work()
    desk.wait(-3600)
    desk.arrive(2)
    desk.wait(QUIET)
    assert desk.decide() == [(2, 5)]


def test_decision_that_fails_leaves_the_series_waiting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.arrive(3)
    desk.wait(QUIET)

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(desk.rooms.queue, "add", full)
        with pytest.raises(MemoryError):
            desk.decide()
    assert [(row.waiting, row.kept) for row in desk.completion.waiting()] == [(3, 3)]
    assert desk.rooms.count("series_images") == 0
    assert desk.decide() == [(1, 3)]


def test_many_who_decide_at_once_make_one_job(tmp_path: Path) -> None:
    desks = [Desk(tmp_path) for _ in range(4)]
    desks[0].arrive(20)
    for desk in desks:
        desk.wait(QUIET)
    barrier, found = threading.Barrier(4), []

    def run(desk: Desk) -> None:
        barrier.wait()
        found.extend(desk.decide())

    threads = [threading.Thread(target=run, args=(desk,)) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(1, 20)]
    assert len(desks[0].rooms.queue.listing(list(JobState))) == 1
    for desk in desks:
        desk.rooms.close()


def test_waiting_series_says_how_many_since_when_and_how_many_are_expected(desk: Desk) -> None:
    start = desk.rooms.now
    desk.arrive(2, announced=5)
    desk.wait(3)
    desk.arrive(1, looked_at=False)
    [row] = desk.completion.waiting()
    assert (row.series, row.study, row.waiting, row.kept, row.expected) == (NAME, STUDY, 3, 3, 5)
    assert (row.since, row.last, row.generation) == (start, start + 3, 0)
