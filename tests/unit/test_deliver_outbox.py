"""The outbox with a fake peer: everything arrives once and in order, whatever the destination does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.analyses import FINDING
from support.recorder import Recorder
from support.rooms import Rooms, encoded, request_for, small
from support.segments import damage

from radnode.audit.events import Actor
from radnode.deliver import outbox
from radnode.deliver.outbox import BATCH, Courier
from radnode.errors import DestinationRefused, DestinationUnavailable, StoreUnavailable
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import get_instance
from radnode.jobs.queue import JobRow
from radnode.model import JobKind, JobState
from radnode.results import Report
from radnode.rules import Decision
from radnode.settings import DeliverSettings, DestinationSettings

PACS = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
ACTOR = Actor(user="test")


class FakePeer:
    """Takes what it is sent; `on_store` and `on_connect` may object."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.connections = 0
        self.on_store: Callable[[bytes], None] = lambda _part10: None
        self.on_connect: Callable[[], None] = lambda: None
        self.on_release: Callable[[], None] = lambda: None

    def store(self, part10: bytes) -> int:
        self.on_store(part10)
        self.taken.append(part10)
        return 0

    @contextmanager
    def connect(self, _destination: DestinationSettings) -> Iterator[FakePeer]:
        self.connections += 1
        self.on_connect()
        yield self
        self.on_release()


class Bench:
    """A courier on real rooms."""

    def __init__(self, folder: Path) -> None:
        self.rooms = Rooms(folder)
        self.peer = FakePeer()
        self.log = Recorder()
        self.courier = Courier(
            PACS,
            self.rooms.stores,
            connect=self.peer.connect,
            settings=DeliverSettings(),
            actor=ACTOR,
            owner="deliver:1",
            log=self.log,
        )

    def reports(self, *numbers: int) -> None:
        """Store results whose reports are b"report <number>"."""
        for number in numbers:
            dataset = small(number)
            receipt = self.rooms.intake.receive(request_for(dataset), encoded(dataset), enqueue=False)
            with reading(self.rooms.engine) as tx:
                instance = get_instance(tx, receipt.instance)
            source = {"PatientID": "SECRET-1", "StudyInstanceUID": "1", "SeriesInstanceUID": "1", "SOPInstanceUID": "1"}
            report = Report(f"2.25.{number}", b"report %d" % number)
            prepared = self.rooms.results.prepare(instance, source, FINDING, report)
            assert prepared is not None
            with transaction(self.rooms.engine) as tx:
                self.rooms.results.commit(tx, [prepared], Decision(deliver=("pacs",)), ACTOR)
            self.rooms.now += 0.1

    def jobs(self) -> list[JobRow]:
        return [row for row in self.rooms.queue.listing(list(JobState)) if row.kind is JobKind.DELIVER]

    def states(self) -> list[JobState]:
        return [row.state for row in self.jobs()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.rooms.close()


def unavailable(*_: Any) -> None:
    raise DestinationUnavailable("The destination pacs cannot be reached.")


def refused(*_: Any) -> None:
    raise DestinationRefused("The destination pacs answered A900 to C-STORE.")


def test_reports_go_in_order_over_one_association_and_are_audited(bench: Bench) -> None:
    bench.reports(1, 2, 3)
    assert bench.courier.step() == 3
    assert bench.peer.taken == [b"report 1", b"report 2", b"report 3"]
    assert bench.peer.connections == 1
    assert bench.states() == [JobState.DONE] * 3
    delivered = [entry for entry in bench.rooms.entries() if "report_delivered" in entry["event"]]
    assert [entry["detail"]["destination"] for entry in delivered] == ["pacs"] * 3


def test_nothing_to_deliver_opens_no_association(bench: Bench) -> None:
    assert bench.courier.step() == 0
    assert bench.peer.connections == 0


def test_dead_destination_is_tried_with_growing_pauses_without_end(bench: Bench) -> None:
    bench.reports(1)
    bench.peer.on_connect = unavailable
    pauses = []
    for _ in range(12):
        assert bench.courier.step() == 1
        (job,) = bench.jobs()
        pauses.append(job.due - bench.rooms.now)
        assert bench.courier.step() == 0  # not before its time
        bench.rooms.now = job.due
    limits = [min(300, 2.0 * 2**number) for number in range(12)]
    assert all(limit / 2 - 0.01 <= pause <= limit + 0.01 for pause, limit in zip(pauses, limits, strict=True))
    bench.peer.on_connect = lambda: None
    bench.courier.step()
    assert bench.states() == [JobState.DONE]


def test_destination_that_goes_away_mid_batch_gets_the_rest_later_in_order_and_nothing_twice(bench: Bench) -> None:
    bench.reports(*range(1, 7))
    bench.peer.on_store = lambda _: unavailable() if len(bench.peer.taken) == 2 else None
    bench.courier.step()
    assert bench.states() == [JobState.DONE] * 2 + [JobState.READY] * 4
    bench.peer.on_store = lambda _: None
    bench.rooms.now += 10
    bench.courier.step()
    taken = [part10.decode().split()[1] for part10 in bench.peer.taken]
    assert sorted(taken) == ["1", "2", "3", "4", "5", "6"]
    assert [number for number in taken if number != "3"] == ["1", "2", "4", "5", "6"]


def test_report_that_makes_the_destination_abort_does_not_block_the_others(bench: Bench) -> None:
    bench.reports(*range(1, 5))
    bench.peer.on_store = lambda part10: unavailable() if part10 == b"report 1" else None
    for _ in range(3):
        bench.courier.step()
        bench.rooms.now += 100
    assert bench.states() == [JobState.READY] + [JobState.DONE] * 3


def test_refused_report_is_a_dead_letter_audited_and_the_next_goes_on(bench: Bench) -> None:
    bench.reports(1, 2)
    bench.peer.on_store = lambda part10: refused() if part10 == b"report 1" else None
    bench.courier.step()
    assert bench.states() == [JobState.DEAD, JobState.DONE]
    assert "A900" in str(bench.jobs()[0].error)
    (failure,) = [entry for entry in bench.rooms.entries() if "delivery_failed" in entry["event"]]
    assert failure["outcome"] == "serious"
    assert failure["detail"]["reason"] == "The destination pacs answered A900 to C-STORE."
    (line,) = [values for event, values in bench.log.lines if event == "report_refused"]
    assert (line["study"], line["instance"]) == (failure["study"], failure["instance"])


def test_refused_association_is_no_verdict_on_the_reports(bench: Bench) -> None:
    bench.reports(1)
    bench.peer.on_connect = refused
    bench.courier.step()
    assert bench.states() == [JobState.READY]


def test_report_that_no_longer_opens_is_a_dead_letter_and_the_next_goes_on(bench: Bench) -> None:
    before = set(bench.rooms.kept_objects())
    bench.reports(1)
    for object_id in set(bench.rooms.kept_objects()) - before:
        damage(bench.rooms.objects_folder, object_id)
    bench.reports(2)
    bench.courier.step()
    assert bench.states() == [JobState.DEAD, JobState.DONE]


def test_lease_that_passed_to_another_courier_is_left_to_it(bench: Bench) -> None:
    bench.reports(1, 2)

    def lose(part10: bytes) -> None:
        if part10 == b"report 1":
            with bench.rooms.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE jobs SET token = 'another' WHERE job = 1")

    bench.peer.on_store = lose
    bench.courier.step()
    assert bench.states() == [JobState.LEASED, JobState.DONE]
    assert "lease_lost" in bench.log.events()


def test_lost_lease_among_the_postponed_keeps_no_other_waiting(bench: Bench) -> None:
    bench.reports(1, 2)

    def lose() -> None:
        with bench.rooms.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET token = 'another' WHERE job = 1")
        unavailable()

    bench.peer.on_connect = lose
    bench.courier.step()
    assert bench.states() == [JobState.LEASED, JobState.READY]


def test_release_that_fails_after_all_was_delivered_is_no_failure(bench: Bench) -> None:
    bench.reports(1)
    bench.peer.on_release = unavailable
    assert bench.courier.step() == 1
    assert bench.states() == [JobState.DONE]


def test_more_reports_than_a_batch_need_several_steps(bench: Bench) -> None:
    bench.reports(*range(1, BATCH + 3))
    assert [bench.courier.step() for _ in range(3)] == [BATCH, 2, 0]
    assert len(bench.peer.taken) == BATCH + 2


def test_courier_survives_trouble_of_its_own_node_and_goes_on_when_rung(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.reports(1)
    stop, troubled = threading.Event(), threading.Event()
    real = bench.rooms.queue.next_due

    def trouble(*_: Any) -> float | None:
        troubled.set()
        raise StoreUnavailable("The database cannot be read now.")

    monkeypatch.setattr(outbox, "IDLE_SECONDS", 30.0)
    monkeypatch.setattr(bench.rooms.queue, "next_due", trouble)
    thread = threading.Thread(target=bench.courier.run, args=(stop,))
    thread.start()
    assert troubled.wait(10)
    monkeypatch.setattr(bench.rooms.queue, "next_due", real)
    bench.reports(2)
    deadline = time.monotonic() + 10
    while bench.states() != [JobState.DONE] * 2 and time.monotonic() < deadline:
        bench.courier.ring()
        time.sleep(0.02)
    stop.set()
    bench.courier.ring()
    thread.join(10)
    assert not thread.is_alive()
    assert bench.states() == [JobState.DONE] * 2
    assert "delivery_stalled" in bench.log.events()
