"""The worker with a fake analyser: every outcome is committed once, and one image harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from support.analyses import FINDING, NO_FINDING
from support.rooms import encoded, request_for, small
from support.segments import damage, erase
from support.worker_bench import WorkerBench

from radnode.audit.events import Actor
from radnode.detect.tries import TROUBLE_SECONDS
from radnode.detect.worker import elements
from radnode.errors import DecoderUnavailable, KeyUnavailable, StoreUnavailable
from radnode.jobs import database
from radnode.jobs.database import transaction
from radnode.model import Analysis, JobKind, JobState, Reason
from radnode.rules import Rules
from radnode.settings import RuleSettings


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerBench]:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    found = WorkerBench(tmp_path)
    yield found
    found.rooms.close()


def test_batch_is_analysed_and_committed_with_delivery_jobs_and_audit(bench: WorkerBench) -> None:
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


def test_lease_lasts_as_long_as_every_detector_may_take_to_load_and_to_run(tmp_path: Path) -> None:
    bench = WorkerBench(tmp_path, load_seconds=1000, timeout_seconds=100, batch=2, decode_seconds=10)
    bench.worker._rules = Rules([RuleSettings(detect=("cxr", "ct")), RuleSettings(detect=("ct",))])
    bench.receive(1)
    expires: list[float | None] = []
    bench.analyser.answers["1.2.3.1"] = lambda: (
        expires.append(bench.rooms.queue.next_due(JobKind.ANALYSE)) or NO_FINDING
    )
    bench.worker.step()
    assert expires[0] == bench.rooms.now + 2 * (1000 + 100) + 2 * 10 + 60
    bench.rooms.close()


def test_image_that_fails_for_good_is_reported_and_done_at_once(bench: WorkerBench) -> None:
    bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = Reason.PIXELS_UNDECODABLE
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("failed", "pixels_undecodable")}
    assert [row.state for row in bench.jobs()] == [JobState.DONE]


@pytest.mark.parametrize("reason", [Reason.MODEL_UNAVAILABLE, Reason.MODEL_RAISED, Reason.MODEL_OUTPUT_INVALID])
def test_model_trouble_is_tried_again_then_reported_failed_and_a_dead_letter(
    bench: WorkerBench, reason: Reason
) -> None:
    bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = reason
    bench.work(2)
    assert bench.outcomes() == {}
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("failed", reason.value)}
    (job,) = bench.jobs()
    assert (job.state, job.attempts, job.error) == (JobState.DEAD, 3, reason.value)
    assert bench.log.levels[-2:] == [("image_analysed", "warning"), ("job_buried", "error")]
    assert bench.log.lines[-1][1]["error"] == reason.value


def test_model_that_comes_back_is_no_failure(bench: WorkerBench) -> None:
    bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = Reason.MODEL_UNAVAILABLE
    bench.work(2)
    del bench.analyser.answers["1.2.3.1"]
    bench.work(1)
    assert bench.outcomes() == {"1.2.3.1": ("no_finding", None)}


def test_image_whose_worker_died_each_time_is_reported_failed_without_running_again(bench: WorkerBench) -> None:
    bench.receive(1)
    for _ in range(3):
        assert len(bench.rooms.queue.lease(JobKind.ANALYSE, "worker:0", 60)) == 1
        bench.rooms.queue.release("worker")
    bench.work(1)
    assert bench.analyser.batches == [[]]
    assert bench.outcomes() == {"1.2.3.1": ("failed", "too_many_attempts")}
    assert [row.state for row in bench.jobs()] == [JobState.DEAD]


def test_image_that_also_kills_its_failure_report_is_buried_unopened(bench: WorkerBench, tmp_path: Path) -> None:
    bench.receive(1)
    for _ in range(4):
        assert len(bench.rooms.queue.lease(JobKind.ANALYSE, "worker:0", 60)) == 1
        bench.rooms.queue.release("worker")
    for object_id in bench.rooms.kept_objects():
        erase(bench.rooms.objects_folder, object_id)
    bench.work(1)
    (job,) = bench.jobs()
    assert (job.state, job.error) == (JobState.DEAD, "too_many_attempts")


def test_a_newer_model_makes_a_new_report_that_names_the_one_before(bench: WorkerBench) -> None:
    """And the same model makes no second one."""
    (instance,) = bench.receive(1)
    bench.analyser.answers["1.2.3.1"] = FINDING
    bench.work(1)
    newer = replace(FINDING.model, version="1.1.0", digest="6f" * 32)
    for answer in (FINDING, replace(FINDING, model=newer), replace(FINDING, model=newer)):
        with transaction(bench.rooms.engine) as tx:
            bench.rooms.queue.repeat(tx, JobKind.ANALYSE, instance)
        bench.analyser.answers["1.2.3.1"] = answer
        bench.work(1)
    actor = Actor(user="test")
    later, earlier = (
        pydicom.dcmread(BytesIO(bench.rooms.results.export(item["id"], actor).report))
        for item in bench.rooms.results.listing(actor)
    )
    (study,) = later.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == earlier.StudyInstanceUID
    assert series.SeriesInstanceUID == earlier.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == earlier.SOPInstanceUID != later.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in earlier


@pytest.mark.parametrize("error", [ValueError, RecursionError, AttributeError, LookupError, ZeroDivisionError])
def test_image_whose_report_cannot_be_built_costs_its_neighbours_nothing(
    bench: WorkerBench, error: type[Exception]
) -> None:
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


def test_object_that_was_changed_on_disk_costs_its_neighbours_nothing(bench: WorkerBench) -> None:
    bench.receive(1)
    (broken,) = bench.rooms.kept_objects()
    bench.receive(2, 3)
    damage(bench.rooms.objects_folder, broken)
    bench.worker.step()
    assert len(bench.outcomes()) == 2
    bench.work()
    dead = [row for row in bench.jobs() if row.state is JobState.DEAD]
    assert [row.error for row in dead] == ["SealBroken"]


def test_object_that_is_gone_is_a_dead_letter_at_once(bench: WorkerBench) -> None:
    bench.receive(1)
    erase(bench.rooms.objects_folder, *bench.rooms.kept_objects())
    bench.worker.step()
    assert [(row.state, row.error) for row in bench.jobs()] == [(JobState.DEAD, "NotFoundError")]


@pytest.mark.parametrize("error", [KeyUnavailable, StoreUnavailable])
def test_trouble_of_the_node_itself_costs_an_image_no_try(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
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


def test_decoder_that_does_not_start_costs_no_try_and_is_no_finding_about_an_image(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.receive(1, 2)

    def down(_tasks: object) -> list[object]:
        raise DecoderUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(bench.analyser, "decode", down)
        for _ in range(10):
            assert bench.worker.step() == 2
            bench.rooms.now += TROUBLE_SECONDS
    assert [(job.state, job.attempts, job.error) for job in bench.jobs()] == [
        (JobState.READY, 0, "DecoderUnavailable")
    ] * 2
    assert bench.outcomes() == {}
    bench.work(1)
    assert set(bench.outcomes().values()) == {("no_finding", None)}


def test_lease_that_passed_to_another_leaves_no_trace_and_neighbours_are_committed(bench: WorkerBench) -> None:
    bench.receive(1, 2)

    def lose() -> Analysis:
        with bench.rooms.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET token = 'another' WHERE job = 1")
        return FINDING

    bench.analyser.answers["1.2.3.1"] = lose
    before = len(bench.rooms.kept_objects())
    bench.worker.step()
    assert set(bench.outcomes()) == {"1.2.3.2"}
    assert len(bench.rooms.kept_objects()) == before + 2
    assert "lease_lost" in bench.log.events()
    assert [row.state for row in bench.jobs()] == [JobState.LEASED, JobState.DONE]


def test_lost_lease_of_a_retried_image_does_not_stop_the_batch(bench: WorkerBench) -> None:
    bench.receive(1, 2)

    def lose() -> Reason:
        with bench.rooms.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET token = 'another' WHERE job = 1")
        return Reason.MODEL_RAISED

    bench.analyser.answers["1.2.3.1"] = lose
    bench.worker.step()
    assert set(bench.outcomes()) == {"1.2.3.2"}


def test_same_result_by_two_workers_at_once_is_stored_once(bench: WorkerBench) -> None:
    bench.receive(1)
    (first,) = bench.rooms.queue.lease(JobKind.ANALYSE, "worker:0", 1)
    bench.rooms.now += 2

    def overtake() -> Analysis:  # while this worker runs, its lease runs out and another one is quicker
        bench.rooms.now += 10_000
        other = WorkerBench(bench.rooms.folder)
        other.rooms.now = bench.rooms.now
        assert other.worker.step() == 1
        other.rooms.close()
        return NO_FINDING

    bench.analyser.answers["1.2.3.1"] = overtake
    bench.worker.step()
    assert first.attempt == 1
    assert bench.rooms.count("results") == 1
    assert len(bench.rooms.kept_objects()) == 3
    assert len(bench.jobs(JobKind.DELIVER)) == 1


def test_object_that_is_no_image_is_kept_and_not_reported_on(bench: WorkerBench) -> None:
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
