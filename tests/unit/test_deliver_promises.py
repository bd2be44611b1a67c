"""Storage Commitment as SCU: "delivered" is what the destination has committed, whatever it loses or forgets to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.analyses import FINDING
from support.recorder import Recorder
from support.rooms import Rooms, encoded, request_for, small

from radnode.audit.events import Actor
from radnode.deliver.breaker import Breaker
from radnode.deliver.outbox import BATCH, Courier
from radnode.deliver.promises import SILENT_LINGERS, Promises
from radnode.errors import DestinationHolds, DestinationRefused, DestinationUnavailable
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import get_instance
from radnode.jobs.register import JobRow
from radnode.model import CommitmentReport, CommitmentRequest, FailedReference, JobKind, JobState
from radnode.part10 import file_header, read_file_meta
from radnode.results import Report
from radnode.rules import Decision
from radnode.settings import DeliverSettings, DestinationSettings

PACS = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, commitment=True)
SETTINGS = DeliverSettings(commitment_seconds=600)
ACTOR = Actor(user="test")
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def part10(number: int) -> bytes:
    """A report small enough to count."""
    dataset = small(SOPInstanceUID=f"2.25.{number}", SOPClassUID=SR)
    request = request_for(dataset)
    return file_header(request) + encoded(dataset)


def committed(request: CommitmentRequest) -> CommitmentReport:
    return CommitmentReport(request.TransactionUID, request.references)


class FakePeer:
    """A PACS that remembers what it was asked; `answer` is what it reports on the same association."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.requests: list[CommitmentRequest] = []
        self.lingered: list[float] = []
        self.settled: list[bool] = []  # whether there was nothing to linger for
        self.on_store: Callable[[], None] = lambda: None
        self.on_ask: Callable[[CommitmentRequest], None] = lambda _request: None
        self.answer: Callable[[CommitmentRequest], CommitmentReport | None] = lambda _request: None

    def store_chunks(self, chunks: Iterable[bytes]) -> int:
        self.on_store()
        self.taken.append(read_file_meta(b"".join(chunks)).sop_instance_uid)
        return 0

    def ask(self, request: CommitmentRequest) -> None:
        self.on_ask(request)
        self.requests.append(request)

    def await_report(
        self, seconds: float, take: Callable[[CommitmentReport], object], is_settled: Callable[[], bool]
    ) -> bool:
        self.lingered.append(seconds)
        self.settled.append(is_settled())
        report = self.answer(self.requests[-1])
        if report is not None:
            take(report)
        return report is not None

    @contextmanager
    def connect(self, _destination: DestinationSettings, _offers: Iterable[tuple[str, str]]) -> Iterator[FakePeer]:
        yield self


class Bench:
    """A courier on real rooms, and the account of the listener, which is another process."""

    def __init__(self, folder: Path) -> None:
        self.rooms = Rooms(folder)
        self.peer = FakePeer()
        self.log = Recorder()
        self.courier = self.make()
        self.listener = self.promises()

    def promises(self) -> Promises:
        return Promises(PACS, self.rooms.stores, settings=SETTINGS, actor=ACTOR, log=self.log)

    def make(self) -> Courier:
        return Courier(
            PACS,
            self.rooms.stores,
            kind=JobKind.DELIVER,
            breaker=Breaker("pacs", JobKind.DELIVER, self.rooms.stores, SETTINGS, self.log),
            connect=self.peer.connect,
            settings=SETTINGS,
            actor=ACTOR,
            owner="deliver:1",
            log=self.log,
            promises=self.promises(),
        )

    def reports(self, *numbers: int) -> None:
        for number in numbers:
            dataset = small(number)
            receipt = self.rooms.intake.receive(request_for(dataset), encoded(dataset), enqueue=False)
            with reading(self.rooms.engine) as tx:
                instance = get_instance(tx, receipt.instance)
            source = {"PatientID": "SECRET-1", "StudyInstanceUID": "1", "SeriesInstanceUID": "1", "SOPInstanceUID": "1"}
            prepared = self.rooms.results.prepare(instance, source, FINDING, Report(f"2.25.{number}", part10(number)))
            assert prepared is not None
            with transaction(self.rooms.engine) as tx:
                self.rooms.results.commit(tx, [prepared], Decision(deliver=("pacs",)), ACTOR)
            self.rooms.now += 0.1

    def jobs(self) -> list[JobRow]:
        return [row for row in self.rooms.queue.listing(list(JobState)) if row.kind is JobKind.DELIVER]

    def states(self) -> list[str]:
        rows = self.rooms.results.listing(ACTOR)
        return sorted(delivery["state"] for row in rows for delivery in row["delivered"])

    def events(self) -> list[str]:
        names = [entry["event"].split()[1] for entry in self.rooms.entries()]
        return [name for name in names if name.startswith(("report_sent", "report_delivered", "delivery"))]

    def later(self) -> int:
        """Go to where the next delivery is due, and try it."""
        self.rooms.now = max(self.rooms.now, *(job.due for job in self.jobs() if job.state is JobState.READY))
        return self.courier.step()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.rooms.close()


def test_report_is_sent_until_the_destination_has_committed_it(bench: Bench) -> None:
    bench.reports(1, 2)
    assert bench.courier.step() == 2
    assert bench.states() == ["sent", "sent"]
    assert bench.events() == ["report_sent", "report_sent"]
    [request] = bench.peer.requests
    assert [item.SOPInstanceUID for item in request.references] == ["2.25.1", "2.25.2"]
    assert {item.SOPClassUID for item in request.references} == {SR}
    assert bench.listener.reported(committed(request)) == 2
    assert bench.states() == ["delivered", "delivered"]
    assert bench.events()[2:] == ["report_delivered", "report_delivered"]
    to = [entry["detail"]["recipient"] for entry in bench.rooms.entries() if "destination" in entry["detail"]]
    assert to == [PACS.recipient] * 4
    assert bench.rooms.count("sendings") == 0


def test_answer_on_the_same_association_is_taken(bench: Bench) -> None:
    bench.reports(1)
    bench.peer.answer = committed
    bench.courier.step()
    assert bench.states() == ["delivered"]
    assert bench.log.events() == ["report_sent", "commitment_asked", "report_delivered"]


def test_lost_report_is_sent_again_with_growing_pauses_until_it_is_committed(bench: Bench) -> None:
    bench.reports(1, 2)
    bench.courier.step()
    pauses = []
    for _ in range(4):
        request = bench.peer.requests[-1]
        lost = [item for item in request.references if item.SOPInstanceUID == "2.25.2"]
        kept = tuple(item for item in request.references if item not in lost)
        report = CommitmentReport(request.TransactionUID, kept, tuple(FailedReference(item, 0x0112) for item in lost))
        bench.listener.reported(report)
        assert bench.states() == ["delivered", "waiting"]
        [job] = [job for job in bench.jobs() if job.state is JobState.READY]
        assert job.error == "The destination pacs did not commit it (0112); it is sent again."
        pauses.append(job.due - bench.rooms.now)
        assert bench.later() == 1
    assert bench.peer.taken == ["2.25.1", "2.25.2"] + ["2.25.2"] * 4
    assert 1 <= pauses[0] <= 2
    assert pauses[3] >= 8
    assert bench.events().count("delivery_failed") == 4
    bench.listener.reported(committed(bench.peer.requests[-1]))
    assert bench.states() == ["delivered", "delivered"]


def test_unanswered_request_is_asked_again_and_then_the_report_is_sent_again(bench: Bench) -> None:
    bench.reports(1)
    bench.courier.step()
    assert bench.jobs()[0].due == bench.rooms.now + 600
    assert bench.later() == 1
    assert (len(bench.peer.taken), len(bench.peer.requests)) == (1, 2)
    assert bench.later() == 1
    assert (len(bench.peer.taken), len(bench.peer.requests)) == (2, 3)
    assert bench.peer.lingered == [1.0, SETTINGS.timeout_seconds, 1.0]
    assert len({request.TransactionUID for request in bench.peer.requests}) == 3
    assert bench.states() == ["sent"]
    first = bench.peer.requests[0]
    reference = first.references[0]
    failed = CommitmentReport(first.TransactionUID, (), (FailedReference(reference, 0x0112),))
    assert bench.listener.reported(failed) == 0  # of a transaction that was superseded: it was sent again since
    assert bench.listener.reported(committed(first)) == 1  # a slow destination that has it, has it
    assert bench.states() == ["delivered"]
    assert bench.listener.reported(committed(bench.peer.requests[2])) == 0


def test_report_that_was_given_up_and_is_committed_after_all_is_delivered_and_no_dead_letter(bench: Bench) -> None:
    bench.reports(1)
    bench.courier.step()
    bench.later()

    def refuses() -> None:
        raise DestinationRefused("The destination pacs answered C000 (cannot understand) to C-STORE.")

    bench.peer.on_store = refuses  # it was asked twice in vain, so the report is sent again
    bench.later()
    assert bench.states() == ["refused"]
    assert bench.listener.reported(committed(bench.peer.requests[0])) == 1  # the PACS has had it all the time
    assert bench.states() == ["delivered"]
    assert bench.events()[-2:] == ["delivery_failed", "report_delivered"]
    assert bench.rooms.count("sendings") == 0


def test_answer_matches_after_a_restart(bench: Bench) -> None:
    bench.reports(1)
    bench.courier.step()
    assert bench.promises().reported(committed(bench.peer.requests[0])) == 1
    assert bench.states() == ["delivered"]


def test_answer_that_is_faster_than_this_node_counts(bench: Bench) -> None:
    def answers(request: CommitmentRequest) -> None:
        bench.listener.reported(committed(request))

    bench.reports(1, 2)
    bench.peer.on_ask = answers
    bench.courier.step()
    assert bench.states() == ["delivered", "delivered"]
    assert bench.rooms.count("sendings") == 0


def test_loss_that_is_told_faster_than_this_node_counts_too(bench: Bench) -> None:
    bench.reports(1)

    def lose(request: CommitmentRequest) -> None:
        failed = tuple(FailedReference(item, 0x0110) for item in request.references)
        bench.listener.reported(CommitmentReport(request.TransactionUID, (), failed))

    bench.peer.on_ask = lose
    bench.courier.step()
    assert bench.states() == ["waiting"]
    bench.peer.on_ask = lambda _: None
    assert bench.later() == 1
    assert bench.peer.taken == ["2.25.1", "2.25.1"]


@pytest.mark.parametrize("error", [DestinationRefused, DestinationUnavailable])
def test_destination_that_is_not_to_be_asked_leaves_reports_sent_with_a_warning(
    bench: Bench, error: type[Exception]
) -> None:
    bench.reports(1)

    def refuse(_: Any) -> None:
        raise error("The destination pacs does not accept StorageCommitmentPushModel; enable it there.")

    bench.peer.on_ask = refuse
    bench.courier.step()
    for _ in range(5):
        assert bench.later() == 1
    assert bench.peer.taken == ["2.25.1"]
    assert bench.states() == ["sent"]
    assert ("commitment_not_asked", "warning") in bench.log.levels
    assert "StorageCommitmentPushModel" in (bench.jobs()[0].error or "")
    bench.peer.on_ask = lambda _: None
    bench.later()
    bench.listener.reported(committed(bench.peer.requests[-1]))
    assert bench.states() == ["delivered"]


def test_report_that_the_destination_holds_already_is_asked_for(bench: Bench) -> None:
    bench.reports(1)

    def holds() -> None:
        raise DestinationHolds("The destination pacs answered 0111.")

    bench.peer.on_store = holds
    bench.courier.step()
    assert len(bench.peer.requests) == 1
    assert bench.states() == ["sent"]


def test_association_that_breaks_mid_batch_asks_for_what_was_taken_later(bench: Bench) -> None:
    bench.reports(1, 2, 3)

    def breaks() -> None:
        if len(bench.peer.taken) == 2:
            raise DestinationUnavailable("The destination pacs cannot be reached.")

    bench.peer.on_store = breaks
    bench.courier.step()
    assert bench.states() == ["sent", "sent", "waiting"]
    bench.peer.on_store = lambda: None
    bench.rooms.now += 10
    bench.courier.step()
    assert bench.peer.taken == ["2.25.1", "2.25.2", "2.25.3"]
    assert len(bench.peer.requests[-1].references) == 3


def test_destination_that_answers_elsewhere_is_not_lingered_on(bench: Bench) -> None:
    def answers(request: CommitmentRequest) -> None:
        bench.listener.reported(committed(request))

    bench.reports(1, 2)
    bench.peer.on_ask = answers
    bench.courier.step()
    assert bench.states() == ["delivered", "delivered"]
    bench.reports(3)
    bench.peer.on_ask = lambda _request: None
    bench.courier.step()
    assert bench.peer.settled == [True, False]


def test_destination_that_never_answers_on_the_same_association_is_not_lingered_on_for_ever(bench: Bench) -> None:
    bench.reports(*range(1, 2 * SILENT_LINGERS * BATCH))
    while bench.courier.step():
        pass
    assert len(bench.peer.requests) == 2 * SILENT_LINGERS
    assert bench.peer.lingered == [1.0] * SILENT_LINGERS


def test_one_request_a_batch_with_a_new_transaction_each(bench: Bench) -> None:
    bench.reports(*range(1, BATCH + 3))
    assert [bench.courier.step() for _ in range(3)] == [BATCH, 2, 0]
    assert [len(request.references) for request in bench.peer.requests] == [BATCH, 2]
    assert all(request.TransactionUID.startswith("2.25.") for request in bench.peer.requests)
