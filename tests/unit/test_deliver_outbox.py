"""The outbox with a fake peer: everything arrives once and in order, whatever the destination does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless
from support.analyses import FINDING
from support.recorder import Recorder
from support.rooms import CT_IMAGE, PEER, Rooms, encoded, request_for, small
from support.segments import damage

from radnode.audit.events import Actor
from radnode.deliver import outbox
from radnode.deliver.breaker import Breaker
from radnode.deliver.lateness import Lateness
from radnode.deliver.outbox import BATCH, Courier
from radnode.errors import DestinationRefused, DestinationUnavailable, StoreUnavailable
from radnode.intake import Intake
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import Unaddressed, out_of_reach, unaddressed
from radnode.jobs.index import get_instance
from radnode.jobs.register import JobRow
from radnode.model import JobKind, JobState, Priority, StoreRequest
from radnode.part10 import file_header, read_file_meta
from radnode.results import Report
from radnode.rules import Decision, Rules
from radnode.settings import DeliverSettings, DestinationSettings, RuleSettings
from radnode.storage.sealing import CHUNK

PACS = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
ACTOR = Actor(user="test")
SR = "1.2.840.10008.5.1.4.1.1.88.34"
HEADER = file_header(StoreRequest(PEER, SR, "1.2.3", SR, ExplicitVRLittleEndian))


class FakePeer:
    """Takes what it is sent; `on_store` and `on_connect` may object."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.connections = 0
        self.pieces = 0
        self.whole = False
        self.offered: set[tuple[str, str]] = set()
        self.on_store: Callable[[bytes], None] = lambda _part10: None
        self.on_connect: Callable[[], None] = lambda: None
        self.on_release: Callable[[], None] = lambda: None

    def store_chunks(self, chunks: Iterable[bytes]) -> int:
        pieces = list(chunks)
        self.pieces = len(pieces)
        part10 = b"".join(pieces)
        if not self.whole:  # what follows the header of a report
            part10 = part10[len(HEADER) :].strip(b" ")
        self.on_store(part10)
        self.taken.append(part10)
        return 0

    @contextmanager
    def connect(self, _destination: DestinationSettings, offers: Iterable[tuple[str, str]]) -> Iterator[FakePeer]:
        self.connections += 1
        self.offered = set(offers)
        self.on_connect()
        yield self
        self.on_release()


class Bench:
    """A courier on real rooms."""

    def __init__(self, folder: Path) -> None:
        self.rooms = Rooms(folder)
        self.peer = FakePeer()
        self.log = Recorder()
        self.breaker = Breaker("pacs", JobKind.DELIVER, self.rooms.stores, DeliverSettings(), self.log)
        self.courier = self.make(JobKind.DELIVER)

    def make(self, kind: JobKind) -> Courier:
        return Courier(
            PACS,
            self.rooms.stores,
            kind=kind,
            breaker=self.breaker,
            connect=self.peer.connect,
            settings=DeliverSettings(),
            actor=ACTOR,
            owner=f"deliver:{kind}",
            log=self.log,
        )

    def reports(self, *numbers: int, priority: Priority = Priority.ROUTINE) -> None:
        """Store results whose reports are b"report <number>"."""
        for number in numbers:
            dataset = small(number)
            receipt = self.rooms.intake.receive(request_for(dataset), encoded(dataset), enqueue=False)
            with reading(self.rooms.engine) as tx:
                instance = get_instance(tx, receipt.instance)
            source = {"PatientID": "SECRET-1", "StudyInstanceUID": "1", "SeriesInstanceUID": "1", "SOPInstanceUID": "1"}
            report = Report(f"2.25.{number}", b"%s%8s" % (HEADER, b"report %d" % number))
            prepared = self.rooms.results.prepare(instance, source, FINDING, report)
            assert prepared is not None
            with transaction(self.rooms.engine) as tx:
                self.rooms.results.commit(tx, [prepared], Decision(deliver=("pacs",), priority=priority), ACTOR)
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
    assert {entry["detail"]["recipient"] for entry in delivered} == {PACS.recipient}
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
    limits = [min(30, 2.0 * 2**number) for number in range(12)]
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


def test_urgent_report_that_makes_the_destination_abort_does_not_block_the_others(bench: Bench) -> None:
    bench.reports(1, 2, 3)
    bench.reports(4, priority=Priority.STAT)

    def abort(part10: bytes) -> None:
        if part10.endswith(b"report 4"):
            unavailable()

    bench.peer.on_store = abort
    for _ in range(40):  # as the courier would: it wakes when the pause is over
        bench.courier.step()
        bench.rooms.now += 0.1
    assert len(bench.peer.taken) == 3
    assert bench.states() == [JobState.DONE] * 3 + [JobState.READY]


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


def received(bench: Bench, *numbers: int) -> list[bytes]:
    """Keep images that a rule forwards, and return their data sets."""
    intake = Intake(bench.rooms.stores, 1 << 24, Rules([RuleSettings(forward=("pacs",))]))
    found = []
    for number in numbers:
        dataset = small(number)
        intake.receive(request_for(dataset, JPEGLSLossless), encoded(dataset))
        found.append(encoded(dataset))
    return found


def forwards(bench: Bench) -> list[JobState]:
    return [row.state for row in bench.rooms.queue.listing(list(JobState)) if row.kind is JobKind.FORWARD]


def test_image_is_forwarded_bit_for_bit_in_the_transfer_syntax_it_came_in_and_audited(bench: Bench) -> None:
    data_sets = received(bench, 1, 2)
    bench.peer.whole = True
    assert bench.make(JobKind.FORWARD).step() == 2
    sent = [part10[read_file_meta(part10).offset :] for part10 in bench.peer.taken]
    assert sent == data_sets
    assert bench.peer.offered == {(CT_IMAGE, JPEGLSLossless)}
    assert forwards(bench) == [JobState.DONE] * 2
    assert [entry["event"] for entry in bench.rooms.entries()].count("110104 image_forwarded") == 2
    assert bench.log.events().count("image_forwarded") == 2


def test_large_image_is_sent_in_pieces(bench: Bench) -> None:
    dataset = small(1)
    dataset.add_new(0x7FE00010, "OB", b"\1" * (3 * CHUNK))
    intake = Intake(bench.rooms.stores, 1 << 24, Rules([RuleSettings(forward=("pacs",))]))
    intake.receive(request_for(dataset), encoded(dataset))
    bench.peer.whole = True
    bench.make(JobKind.FORWARD).step()
    [part10] = bench.peer.taken
    assert part10[read_file_meta(part10).offset :] == encoded(dataset)
    assert bench.peer.pieces == 4


def test_damage_in_a_later_chunk_is_a_dead_letter_before_anything_is_sent(bench: Bench) -> None:
    dataset = small(1)
    dataset.add_new(0x7FE00010, "OB", b"\1" * (3 * CHUNK))
    intake = Intake(bench.rooms.stores, 1 << 24, Rules([RuleSettings(forward=("pacs",))]))
    before = set(bench.rooms.kept_objects())
    intake.receive(request_for(dataset), encoded(dataset))
    [object_id] = set(bench.rooms.kept_objects()) - before
    damage(bench.rooms.objects_folder, object_id)
    bench.make(JobKind.FORWARD).step()
    assert (forwards(bench), bench.peer.connections) == ([JobState.DEAD], 0)
    assert "forward_refused" in bench.log.events()


def test_breaker_opens_after_three_associations_and_leaves_what_waits_alone(bench: Bench) -> None:
    bench.reports(*range(1, 100))
    bench.peer.on_connect = unavailable
    for _ in range(20):
        bench.courier.step()
        bench.rooms.now += 31
    assert bench.log.events().count("destination_out_of_reach") == 1
    assert sum(row.attempts for row in bench.jobs()) == BATCH + 19  # one whole batch, then a probe at a time
    with reading(bench.rooms.engine) as tx:
        gone = out_of_reach(tx)["pacs"]
    assert gone.error == "The destination pacs cannot be reached."

    bench.peer.on_connect = lambda: None
    steps = 0
    while any(state is not JobState.DONE for state in bench.states()):  # without a second passing
        assert bench.courier.step()
        steps += 1
    assert steps == 1 + 98 // BATCH + 1
    assert sorted(bench.peer.taken) == sorted(b"report %d" % number for number in range(1, 100))
    assert bench.log.events().count("destination_back") == 1
    with reading(bench.rooms.engine) as tx:
        assert out_of_reach(tx) == {}


def test_probe_is_one_delivery_and_a_step_that_fails_on_this_node_leaves_it_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.reports(1, 2, 3)
    bench.peer.on_connect = unavailable
    for _ in range(3):
        bench.courier.step()
        bench.rooms.now += 31
    assert bench.breaker.admit(BATCH) == 1

    def fails(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The database cannot be written now.")

    with monkeypatch.context() as patched:
        patched.setattr(bench.rooms.queue, "lease", fails)
        with pytest.raises(StoreUnavailable):
            bench.courier.step()
    assert bench.courier.step() == 1
    assert bench.breaker.admit(BATCH) == 0


def test_node_that_starts_again_knows_who_is_out_of_reach_and_tries_at_once(bench: Bench) -> None:
    bench.reports(1)
    bench.peer.on_connect = unavailable
    for _ in range(3):
        bench.courier.step()
        bench.rooms.now += 31
    again = Breaker("pacs", JobKind.DELIVER, bench.rooms.stores, DeliverSettings(), bench.log)
    assert (again.pause(), again.admit(BATCH)) == (0.0, 1)
    again.worked()
    assert bench.log.events().count("destination_back") == 1


def test_stop_that_comes_between_a_look_and_the_bell_is_not_slept_over(bench: Bench) -> None:
    class Stop(threading.Event):
        """Is set, and the bell rung, right after it was looked at for the first time."""

        def is_set(self) -> bool:
            found = super().is_set()
            self.set()
            bench.courier.ring()
            return found

    began = time.monotonic()
    bench.courier.run(Stop())
    assert time.monotonic() - began < outbox.IDLE_SECONDS / 2


def test_clock_that_goes_back_an_hour_stops_no_delivery(bench: Bench) -> None:
    bench.reports(1)
    bench.peer.on_connect = unavailable
    bench.courier.step()
    assert bench.breaker.admit(BATCH) == 0
    bench.rooms.now -= 3600
    assert bench.breaker.admit(BATCH) == 1


def test_busy_destination_that_answers_a700_for_hours_is_a_destination_out_of_reach(bench: Bench) -> None:
    bench.reports(*range(1, 6))
    bench.peer.on_store = lambda _part10: unavailable()
    for _ in range(100):
        bench.courier.step()
        bench.rooms.now += 60
    assert bench.log.events().count("destination_out_of_reach") == 1
    assert set(bench.states()) == {JobState.READY}
    bench.peer.on_store = lambda _part10: None
    bench.rooms.now += 3600  # longer than the longest pause, of the destination and of each job
    for _ in range(3):
        bench.courier.step()
    assert bench.states() == [JobState.DONE] * 5
    assert len(bench.peer.taken) == 5


def lateness(bench: Bench, *destinations: str) -> Lateness:
    def lost() -> list[Unaddressed]:
        with reading(bench.rooms.engine) as tx:
            return unaddressed(tx, destinations, ["CT1"])

    return Lateness(
        destinations,
        bench.rooms.stores,
        settings=DeliverSettings(),
        actor=ACTOR,
        log=bench.log,
        unaddressed=lost,
    )


def test_what_waits_for_nobody_is_said_at_the_start_and_again_after_the_time(bench: Bench) -> None:
    bench.reports(1, 2)
    with transaction(bench.rooms.engine) as tx:
        for peer in ("CT1", "CT2"):
            bench.rooms.queue.add(tx, JobKind.COMMIT, f"of {peer}", peer)
    late = lateness(bench, "archive")
    for _ in range(61):
        late.look()
        bench.rooms.now += 61
    [first, second, third, fourth] = [line for event, line in bench.log.lines if event == "destination_unknown"]
    assert (first["destination"], first["count"]) == ("pacs", 2)
    assert first["advice"].startswith("Add it again as a destination, or drop them: `radnode jobs discard ")
    assert (second["destination"], second["count"]) == ("CT2", 1)
    assert (third["destination"], third["seconds"]) == ("pacs", 3660)
    assert fourth["destination"] == "CT2"
    alerts = [entry["detail"] for entry in bench.rooms.entries() if entry["event"].endswith(" alert")]
    assert alerts[0] == {"count": 2, "destination": "pacs", "rule": "destination_unknown"}
    assert len(alerts) == 4


def test_what_waits_too_long_is_said_once_in_that_time_and_audited(bench: Bench) -> None:
    late = lateness(bench, "pacs", "archive")
    bench.reports(1, 2)
    late.look()
    assert bench.log.events() == []
    for _ in range(70):
        bench.rooms.now += 61
        late.look()
    assert bench.log.events() == ["deliveries_late"]
    [(_, line)] = bench.log.lines
    assert (line["destination"], line["count"]) == ("pacs", 2)
    [alert] = [entry for entry in bench.rooms.entries() if entry["event"].endswith(" alert")]
    assert alert["detail"] == {"count": 2, "destination": "pacs", "rule": "deliveries_late"}
    for _ in range(60):
        bench.rooms.now += 61
        late.look()
    assert bench.log.events() == ["deliveries_late"] * 2
