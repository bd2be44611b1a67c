"""The worker with a fake analyser: every outcome is committed once, and one image harms no other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from support.analyses import FINDING, NO_FINDING
from support.recorder import Recorder
from support.rooms import Rooms, encoded, request_for, small

from radnode.audit.events import Actor
from radnode.detect.analyser import Task
from radnode.detect.worker import TROUBLE_SECONDS, Worker, elements
from radnode.errors import KeyUnavailable, StoreUnavailable
from radnode.jobs import database
from radnode.jobs.queue import JobRow
from radnode.model import Analysis, JobKind, JobState, Reason
from radnode.results import Report
from radnode.rules import Rules
from radnode.settings import DetectSettings, RuleSettings

IMAGE = {"Rows": 1, "Columns": 1, "PixelData": b"\0\0", "BitsAllocated": 16}
Answer = Analysis | Reason | Callable[[], Any]


class FakeAnalyser:
    """Answers by SOP Instance UID; what is not named has no finding."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.batches: list[list[str]] = []

    def task(self, name: str, header: Dataset, part10: bytes) -> Task:
        return Task(name, header, part10, None)

    def decode(self, tasks: Sequence[Task]) -> list[FakeAnalyser]:
        self.pending = [task for task in tasks if task.pending]
        self.batches.append([str(task.header.SOPInstanceUID) for task in self.pending])
        return [self]

    def run(self) -> None:
        for task in self.pending:
            answer = self.answers.get(str(task.header.SOPInstanceUID), NO_FINDING)
            if callable(answer) and not isinstance(answer, Reason):
                answer = answer()
            if isinstance(answer, Reason):
                task.decline(answer)
            else:
                task.answer(answer)


class Bench:
    """A worker on real rooms."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.rooms = Rooms(folder)
        self.analyser = FakeAnalyser()
        self.log = Recorder()
        self.compose: Callable[[Dataset, Analysis], None] = lambda _header, _analysis: None
        self.worker = Worker(
            engine=self.rooms.engine,
            queue=self.rooms.queue,
            vault=self.rooms.vault,
            results=self.rooms.results,
            rules=Rules([RuleSettings(detect=("cxr",), deliver=("pacs",))]),
            analyser=self.analyser,
            compose=self._compose,
            settings=DetectSettings(**settings),
            actor=Actor(user="test"),
            owner="worker:1",
            log=self.log,
        )

    def _compose(self, header: Dataset, analysis: Analysis, received: float) -> Report:
        self.compose(header, analysis)
        digest = hashlib.sha256(f"{header.SOPInstanceUID}{analysis.model.device_uid}".encode()).hexdigest()
        return Report(f"2.25.{int(digest[:24], 16)}", f"report {analysis.outcome.value}".encode())

    def receive(self, *numbers: int) -> list[str]:
        """Keep images and return their pseudonyms."""
        found = []
        for number in numbers:
            dataset = small(number, **IMAGE)
            dataset["PixelData"].VR = "OW"
            found.append(self.rooms.intake.receive(request_for(dataset), encoded(dataset)).instance)
        return found

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        """Return outcome and reason by SOP Instance UID."""
        documents = self.rooms.results.listing(Actor(user="test"))
        return {item["source"]["SOPInstanceUID"]: (item["outcome"], item["reason"]) for item in documents}

    def jobs(self, kind: JobKind = JobKind.ANALYSE) -> list[JobRow]:
        return [row for row in self.rooms.queue.listing(list(JobState)) if row.kind is kind]

    def work(self, steps: int = 20) -> None:
        """Step with time passing, as a role does."""
        for _ in range(steps):
            self.worker.step()
            self.rooms.now += 100


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    found = Bench(tmp_path)
    yield found
    found.rooms.close()


def test_batch_is_analysed_and_committed_with_delivery_jobs_and_audit(bench: Bench) -> None:
    bench.receive(1, 2, 3)
    bench.analyser.answers["1.2.3.2"] = FINDING
    assert bench.worker.step() == 3
    assert bench.analyser.batches == [["1.2.3.1", "1.2.3.2", "1.2.3.3"]]
    assert {row.state for row in bench.jobs()} == {JobState.DONE}
    assert [row.destination for row in bench.jobs(JobKind.DELIVER)] == ["pacs"] * 3
    events = [entry["event"].split()[1] for entry in bench.rooms.entries()]
    assert events == ["image_received"] * 3 + ["image_analysed", "report_created"] * 3
    assert bench.outcomes()["1.2.3.2"] == ("finding", None)
    assert bench.outcomes()["1.2.3.1"] == ("no_finding", None)


def test_image_that_fails_for_good_is_reported_and_done_at_once(bench: Bench) -> None:
    bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = Reason.PIXELS_UNDECODABLE
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("failed", "pixels_undecodable")}
    assert [row.state for row in bench.jobs()] == [JobState.DONE]


@pytest.mark.parametrize("reason", [Reason.MODEL_UNAVAILABLE, Reason.MODEL_RAISED, Reason.MODEL_OUTPUT_INVALID])
def test_model_trouble_is_tried_again_then_reported_failed_and_a_dead_letter(bench: Bench, reason: Reason) -> None:
    bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = reason
    bench.work(2)
    assert bench.outcomes() == {}
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("failed", reason.value)}
    (job,) = bench.jobs()
    assert (job.state, job.attempts, job.error) == (JobState.DEAD, 3, reason.value)


def test_model_that_comes_back_is_no_failure(bench: Bench) -> None:
    bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = Reason.MODEL_UNAVAILABLE
    bench.work(2)
    del bench.analyser.answers["1.2.3.1"]
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("no_finding", None)}


def test_image_whose_worker_died_each_time_is_reported_failed_without_running_again(bench: Bench) -> None:
    bench.receive(1)
    for _ in range(3):
        assert len(bench.rooms.queue.lease(JobKind.ANALYSE, "worker:0", 60)) == 1
        bench.rooms.queue.release("worker")
    bench.work(1)
    assert bench.analyser.batches == [[]]
    assert bench.outcomes() == {"1.2.3.1": ("failed", "too_many_attempts")}
    assert [row.state for row in bench.jobs()] == [JobState.DEAD]


def test_image_that_also_kills_its_failure_report_is_buried_unopened(bench: Bench, tmp_path: Path) -> None:
    bench.receive(1)
    for _ in range(4):
        assert len(bench.rooms.queue.lease(JobKind.ANALYSE, "worker:0", 60)) == 1
        bench.rooms.queue.release("worker")
    for path in bench.rooms.object_files():
        path.unlink()
    bench.work(1)
    (job,) = bench.jobs()
    assert (job.state, job.error) == (JobState.DEAD, "too_many_attempts")


@pytest.mark.parametrize("error", [ValueError, RecursionError, AttributeError, LookupError, ZeroDivisionError])
def test_image_whose_report_cannot_be_built_costs_its_neighbours_nothing(bench: Bench, error: type[Exception]) -> None:
    bench.receive(1, 2, 3)

    def compose(header: Dataset, _analysis: Analysis) -> None:
        if header.SOPInstanceUID == "1.2.3.1":
            raise error("Secret^Name")

    bench.compose = compose
    bench.worker.step()
    assert set(bench.outcomes()) == {"1.2.3.2", "1.2.3.3"}
    bench.work()
    assert sorted(row.state for row in bench.jobs()) == [JobState.DEAD, JobState.DONE, JobState.DONE]
    assert "Secret" not in str(bench.log.lines)
    assert bench.log.lines[0][1]["error"] == error.__name__


def test_object_that_was_changed_on_disk_costs_its_neighbours_nothing(bench: Bench) -> None:
    bench.receive(1)
    (broken,) = bench.rooms.object_files()
    bench.receive(2, 3)
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    bench.worker.step()
    assert len(bench.outcomes()) == 2
    bench.work()
    dead = [row for row in bench.jobs() if row.state is JobState.DEAD]
    assert [row.error for row in dead] == ["SealBroken"]


def test_object_that_is_gone_is_a_dead_letter_at_once(bench: Bench) -> None:
    bench.receive(1)
    bench.rooms.object_files()[0].unlink()
    bench.worker.step()
    assert [(row.state, row.error) for row in bench.jobs()] == [(JobState.DEAD, "NotFoundError")]


@pytest.mark.parametrize("error", [KeyUnavailable, StoreUnavailable])
def test_trouble_of_the_node_itself_costs_an_image_no_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    bench.receive(1)

    def down(_object_id: bytes) -> bytes:
        raise error("down")

    with monkeypatch.context() as patch:
        patch.setattr(bench.rooms.vault, "get", down)
        for _ in range(10):
            assert bench.worker.step() == 1
            bench.rooms.now += TROUBLE_SECONDS
    (job,) = bench.jobs()
    assert (job.state, job.attempts) == (JobState.READY, 0)
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("no_finding", None)}


def test_lease_that_passed_to_another_leaves_no_trace_and_neighbours_are_committed(bench: Bench) -> None:
    bench.receive(1, 2)

    def lose() -> Analysis:
        with bench.rooms.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET token = 'another' WHERE job = 1")
        return FINDING

    bench.analyser.answers["1.2.3.1"] = lose
    before = len(bench.rooms.object_files())
    bench.worker.step()
    assert set(bench.outcomes()) == {"1.2.3.2"}
    assert len(bench.rooms.object_files()) == before + 2
    assert "lease_lost" in bench.log.events()
    assert [row.state for row in bench.jobs()] == [JobState.LEASED, JobState.DONE]


def test_lost_lease_of_a_retried_image_does_not_stop_the_batch(bench: Bench) -> None:
    bench.receive(1, 2)

    def lose() -> Reason:
        with bench.rooms.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET token = 'another' WHERE job = 1")
        return Reason.MODEL_RAISED

    bench.analyser.answers["1.2.3.1"] = lose
    bench.worker.step()
    assert set(bench.outcomes()) == {"1.2.3.2"}


def test_same_result_by_two_workers_at_once_is_stored_once(bench: Bench) -> None:
    bench.receive(1)
    (first,) = bench.rooms.queue.lease(JobKind.ANALYSE, "worker:0", 1)
    bench.rooms.now += 2

    def overtake() -> Analysis:  # while this worker runs, its lease runs out and another one is quicker
        bench.rooms.now += 10_000
        other = Bench(bench.rooms.folder)
        other.rooms.now = bench.rooms.now
        assert other.worker.step() == 1
        other.rooms.close()
        return NO_FINDING

    bench.analyser.answers["1.2.3.1"] = overtake
    bench.worker.step()
    assert first.attempt == 1
    assert bench.rooms.count("results") == 1
    assert len(bench.rooms.object_files()) == 3
    assert len(bench.jobs(JobKind.DELIVER)) == 1


def test_object_that_is_no_image_is_kept_and_not_reported_on(bench: Bench) -> None:
    dataset = small(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    bench.rooms.intake.receive(request_for(dataset), encoded(dataset))
    bench.worker.step()
    assert bench.outcomes() == {}
    assert [row.state for row in bench.jobs()] == [JobState.DONE]
    assert bench.log.events() == ["image_kept"]


def test_values_that_rules_see_are_those_of_the_data_set() -> None:
    dataset = small(ImageType=["DERIVED", "PRIMARY"], SeriesNumber=None)
    found = elements(dataset, ("ImageType", "Modality", "SeriesNumber", "StudyDescription"))
    assert found == {"ImageType": "DERIVED\\PRIMARY", "Modality": "CT", "SeriesNumber": "", "StudyDescription": ""}
