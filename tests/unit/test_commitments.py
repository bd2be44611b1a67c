"""Storage commitments asked of this node, on real rooms: only what opens is committed, and no UID is in the open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.recorder import Recorder
from support.rooms import CT_IMAGE, PEER, Rooms, encoded, request_for, small
from support.segments import damage

from radnode.audit.events import Actor
from radnode.commitments import Commitments
from radnode.deliver.commitment import BATCH, Reporter
from radnode.errors import (
    DestinationUnavailable,
    DuplicateTransaction,
    KeyUnavailable,
    NotFoundError,
    PeerMovedOn,
    StoreUnavailable,
)
from radnode.jobs.database import reading
from radnode.jobs.index import objects_beginning
from radnode.jobs.register import JobRow
from radnode.model import CommitmentReport, CommitmentRequest, FailedReference, JobKind, JobState, Reference
from radnode.settings import DeliverSettings

TRANSACTION = "1.2.840.99.1"
ACTOR = Actor(user="test")


class Bench:
    """Rooms that keep images, their commitments, and a peer that listens to reports."""

    def __init__(self, folder: Path) -> None:
        self.rooms = Rooms(folder)
        self.commitments = Commitments(self.rooms.stores)
        self.told: list[CommitmentReport] = []
        self.calls = 0
        self.error: Exception | None = None
        self.log = Recorder()
        self.reporter = self.make()

    def make(self) -> Reporter:
        return Reporter(
            PEER.ae_title,
            self.rooms.stores,
            self.commitments,
            settings=DeliverSettings(),
            actor=ACTOR,
            owner="deliver:1",
            log=self.log,
        )

    def keep(self, *numbers: int, **elements: object) -> None:
        for number in numbers:
            dataset = small(number, **elements)
            self.rooms.intake.receive(request_for(dataset), encoded(dataset), enqueue=False)

    def ask(self, *numbers: int, transaction: str = TRANSACTION, sop_class: str = CT_IMAGE) -> CommitmentRequest:
        request = CommitmentRequest(transaction, tuple(Reference(sop_class, f"1.2.3.{number}") for number in numbers))
        self.commitments.accept(PEER, request)
        return request

    @contextmanager
    def connect(self) -> Iterator[Bench]:
        self.calls += 1
        yield self

    def report(self, report: CommitmentReport) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(report)

    def jobs(self) -> list[JobRow]:
        return [row for row in self.rooms.queue.listing(list(JobState)) if row.kind is JobKind.COMMIT]

    def events(self, name: str) -> list[dict]:
        return [entry for entry in self.rooms.entries() if entry["event"].endswith(name)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.rooms.close()


def test_request_is_durable_audited_and_a_job_when_it_is_accepted(bench: Bench) -> None:
    request = bench.ask(1, 2)
    [job] = bench.jobs()
    assert (job.state, job.destination) == (JobState.READY, "MODALITY1")
    assert Commitments(bench.rooms.stores).load(job.subject) == request
    [entry] = bench.events("commitment_requested")
    assert entry["detail"] == {"commitment": job.subject, "count": 2}
    assert (entry["patient"], entry["actor"]["ae"]) == (None, "MODALITY1")


def test_no_uid_of_a_request_is_in_the_database_or_a_file(bench: Bench) -> None:
    bench.ask(4711, transaction="1.2.840.99.777777")
    written = b"".join(path.read_bytes() for path in bench.rooms.folder.rglob("*") if path.is_file())
    assert b"1.2.3.4711" not in written
    assert b"1.2.840.99.777777" not in written


def test_sweep_is_told_of_requests(bench: Bench) -> None:
    bench.ask(1)
    [kept] = bench.rooms.kept_objects()
    with reading(bench.rooms.engine) as tx:
        assert objects_beginning(tx, kept[:12]) == [kept]


def test_what_is_kept_is_committed_and_what_is_not_has_its_reason(bench: Bench) -> None:
    bench.keep(1, 2)
    conflicting = Reference("1.2.840.10008.5.1.4.1.1.4", "1.2.3.2")
    missing, kept = Reference(CT_IMAGE, "1.2.3.3"), Reference(CT_IMAGE, "1.2.3.1")
    judgement = bench.commitments.judge(CommitmentRequest(TRANSACTION, (kept, conflicting, missing, kept)))
    failed = (FailedReference(conflicting, 0x0119), FailedReference(missing, 0x0112))
    assert judgement.report == CommitmentReport(TRANSACTION, (kept, kept), failed)
    patient = bench.rooms.pseudonyms.patient("", "SECRET-1")
    assert judgement.committed == {patient: 2}
    assert judgement.failed == {patient: 1, None: 1}


def test_damaged_object_is_not_committed(bench: Bench) -> None:
    bench.keep(1, 2)
    with bench.rooms.engine.connect() as connection:
        object_id = connection.exec_driver_sql("SELECT object_id FROM instances LIMIT 1").scalar_one()
    damage(bench.rooms.objects_folder, object_id)
    request = CommitmentRequest(TRANSACTION, (Reference(CT_IMAGE, "1.2.3.1"), Reference(CT_IMAGE, "1.2.3.2")))
    report = bench.commitments.judge(request).report
    assert len(report.committed) == 1
    assert [item.reason for item in report.failed] == [0x0110]


def test_object_that_is_gone_is_not_committed(bench: Bench) -> None:
    bench.keep(1)
    [object_id] = bench.rooms.kept_objects()
    bench.rooms.objects.delete(object_id)
    report = bench.commitments.judge(CommitmentRequest(TRANSACTION, (Reference(CT_IMAGE, "1.2.3.1"),))).report
    assert [item.reason for item in report.failed] == [0x0110]


def test_trouble_of_this_node_is_no_failure_of_an_instance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep(1)
    bench.ask(1)

    def down(_key_id: bytes) -> None:
        raise KeyUnavailable("The key provider does not answer.")

    monkeypatch.setattr(bench.rooms.keys, "of_id", down)
    assert bench.reporter.step(bench.connect) == 1
    assert (bench.calls, bench.told) == (0, [])
    assert [job.state for job in bench.jobs()] == [JobState.READY]
    monkeypatch.undo()
    bench.rooms.now += 10
    bench.reporter.step(bench.connect)
    assert [len(report.committed) for report in bench.told] == [1]


def test_same_request_again_changes_nothing_and_another_of_its_transaction_is_refused(bench: Bench) -> None:
    bench.ask(1, 2)
    bench.ask(1, 2)
    with pytest.raises(DuplicateTransaction):
        bench.ask(1)
    assert len(bench.jobs()) == bench.rooms.count("commitments") == len(bench.rooms.kept_objects()) == 1


def test_transaction_that_was_answered_is_not_asked_again(bench: Bench) -> None:
    bench.ask(1)
    bench.reporter.step(bench.connect)
    with pytest.raises(DuplicateTransaction):
        bench.ask(1)
    assert bench.rooms.holds_nothing()


def test_request_that_cannot_be_committed_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(bench.rooms.queue, "add_all", full)
    with pytest.raises(StoreUnavailable):
        bench.ask(1)
    assert bench.rooms.holds_nothing()
    assert bench.rooms.count("commitments") == 0


def test_answer_that_was_taken_ends_the_job_is_audited_by_patient_and_removes_the_request(bench: Bench) -> None:
    bench.keep(1)
    bench.keep(2, PatientID="OTHER")
    bench.ask(1, 2, 3)
    assert bench.reporter.step(bench.connect) == 1
    [job] = bench.jobs()
    assert job.state is JobState.DONE
    assert len(bench.rooms.kept_objects()) == 2
    entries = bench.events("commitment_reported")
    assert [(entry["detail"]["count"], entry["detail"]["failed"], entry["outcome"]) for entry in entries] == [
        (1, 0, "success"),
        (1, 0, "success"),
        (0, 1, "minor"),
    ]
    assert len({entry["patient"] for entry in entries}) == 3
    with pytest.raises(NotFoundError):
        bench.commitments.load(job.subject)
    assert bench.log.levels == [("commitment_reported", "warning")]


def test_peer_that_is_away_is_told_again_with_growing_pauses_and_objects_are_read_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.keep(1)
    bench.ask(1)
    opened = []
    real = bench.rooms.vault.open
    monkeypatch.setattr(bench.rooms.vault, "open", lambda object_id: opened.append(object_id) or real(object_id))
    bench.error = DestinationUnavailable("The peer MODALITY1 cannot be reached.")
    pauses = []
    for _ in range(10):
        assert bench.reporter.step(bench.connect) == 1
        (job,) = bench.jobs()
        pauses.append(job.due - bench.rooms.now)
        bench.rooms.now = job.due
    assert 1 <= pauses[0] <= 2
    assert pauses[-1] >= 150
    bench.error = None
    bench.reporter.step(bench.connect)
    assert [job.state for job in bench.jobs()] == [JobState.DONE]
    assert len(opened) == 2  # the request, and the one instance


def test_answer_survives_a_restart(bench: Bench) -> None:
    bench.keep(1)
    bench.ask(1)
    bench.error = DestinationUnavailable("The peer MODALITY1 cannot be reached.")
    bench.reporter.step(bench.connect)
    bench.error = None
    bench.rooms.now += 10
    bench.make().step(bench.connect)
    assert [len(report.committed) for report in bench.told] == [1]


def test_peer_that_moved_on_is_called_at_once_and_its_try_does_not_count(bench: Bench) -> None:
    bench.ask(1)
    bench.error = PeerMovedOn("The peer released the association.")
    bench.reporter.step(bench.connect)
    (job,) = bench.jobs()
    assert (job.due, job.attempts) == (bench.rooms.now, 0)
    assert "deliver" in bench.rooms.rung
    assert bench.log.lines == []


def test_judging_ends_when_nobody_waits_any_more(bench: Bench) -> None:
    bench.keep(1)
    bench.ask(1)
    bench.reporter.step(bench.connect, lambda: False)
    assert (bench.calls, bench.told) == (0, [])
    assert [job.state for job in bench.jobs()] == [JobState.READY]


def test_batch_of_requests_is_answered_on_one_association(bench: Bench) -> None:
    for number in range(BATCH + 2):
        bench.ask(number, transaction=f"1.2.{number}")
    assert [bench.reporter.step(bench.connect) for _ in range(3)] == [BATCH, 2, 0]
    assert bench.calls == 2
    assert [report.TransactionUID for report in bench.told] == [f"1.2.{number}" for number in range(BATCH + 2)]
