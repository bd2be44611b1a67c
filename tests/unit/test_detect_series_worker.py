"""Whole series through a real detector: one job, one report on the right slice, and a second one after a late image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from support import toys
from support.crash import sources
from support.ct import CTSeries
from support.report_checks import children, is_planar, measurement_groups, problems
from support.segments import damage
from support.series_bench import QUIET, RULE, SeriesBench

from radnode.model import JobKind, JobState
from radnode.settings import DetectSettings


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the toy that finds what is bright."""
    folder = tmp_path_factory.mktemp("models")
    toys.install_series(folder, "toy-bright", toys.Bright())
    return folder


@pytest.fixture
def bench(tmp_path: Path, bright: Path) -> Iterator[SeriesBench]:
    (tmp_path / "models").symlink_to(bright)
    with SeriesBench(tmp_path) as found:
        yield found


def predecessors(report: Dataset) -> list[str]:
    """The reports that a report names as those before it."""
    return [
        str(item.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def regions(report: Dataset) -> list[tuple[str, list[float]]]:
    """The source image and the outline of every finding."""
    found = []
    for group in filter(is_planar, measurement_groups(report)):
        [region] = children(group, "111030")
        [image] = region.ContentSequence
        found.append((str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID), list(region.GraphicData)))
    return found


def test_series_becomes_one_job_and_one_report_with_the_finding_on_its_slice(bench: SeriesBench) -> None:
    series = CTSeries(bright=[4, 5])
    slices = series.slices(1, 12)
    bench.receive(*reversed(slices))
    bench.work(QUIET + 2)
    assert [job.state for job in bench.jobs()] == [JobState.DONE]
    [document] = bench.documents()
    assert (document["outcome"], document["reason"]) == ("finding", None)
    assert document["source"]["images"] == [str(item.SOPInstanceUID) for item in slices]  # along the normal
    [finding] = document["findings"]
    assert finding["region"]["frame"] == 4
    [report] = bench.reports()
    assert sources(report) == document["source"]["images"]
    assert regions(report) == [(str(slices[3].SOPInstanceUID), [32, 32, 48, 32, 48, 40, 32, 40, 32, 32])]
    assert problems(report) == []
    assert predecessors(report) == []
    deliveries = bench.jobs(JobKind.DELIVER)
    assert [(job.subject, job.destination) for job in deliveries] == [(document["id"], "pacs")]


def test_late_image_gives_a_second_report_that_names_the_first(bench: SeriesBench) -> None:
    series = CTSeries(bright=[9])
    bench.receive(*series.slices(1, 8))
    bench.work(QUIET + 2)
    bench.receive(series.slice(9))
    bench.work(QUIET + 2)
    bench.receive(series.slice(0))
    bench.work(QUIET + 2)
    assert [job.state for job in bench.jobs()] == [JobState.DONE] * 3
    first, second, third = bench.reports()
    assert [len(sources(report)) for report in (first, second, third)] == [8, 9, 10]
    assert [predecessors(report) for report in (first, second, third)] == [
        [],
        [first.SOPInstanceUID],
        [second.SOPInstanceUID],
    ]
    assert [document["outcome"] for document in bench.documents()] == ["no_finding", "finding", "finding"]
    assert len(bench.jobs(JobKind.DELIVER)) == 3


def test_same_images_again_change_nothing(bench: SeriesBench) -> None:
    slices = CTSeries().slices(1, 4)
    bench.receive(*slices)
    bench.work(QUIET + 2)
    bench.receive(*slices)
    bench.work(3 * QUIET)
    assert len(bench.jobs()) == len(bench.documents()) == 1


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (CTSeries().slices(1, 2), "too_few_images"),
        ([CTSeries().slice(1) for _ in range(3)], "too_few_images"),
    ],
)
def test_series_that_is_too_short_is_not_attempted(bench: SeriesBench, slices: list[Dataset], reason: str) -> None:
    bench.receive(*slices)
    bench.work(QUIET + 5)
    documents = bench.documents()
    assert {(document["outcome"], document["reason"]) for document in documents} == {("not_attempted", reason)}
    assert len(documents) == len({item.SeriesInstanceUID for item in slices})


@pytest.mark.parametrize(
    "odd",
    [
        {"ImagePositionPatient": [-166.0, -171.7, -205.1]},  # where slice 1 is
        {"ImagePositionPatient": None},
        {"ImagePositionPatient": [0, 0]},
        {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"PixelSpacing": [1.0, 1.0]},
        {"FrameOfReferenceUID": "1.2.3"},
        {"PatientID": "ANOTHER"},
    ],
    ids=str,
)
def test_images_that_are_no_volume_are_not_attempted_and_never_mixed_up(
    bench: SeriesBench, odd: dict[str, object]
) -> None:
    series = CTSeries(bright=[1, 2, 3])
    bench.receive(*series.slices(1, 3), series.slice(4, **odd))
    bench.work(QUIET + 2)
    [document] = bench.documents()
    assert (document["outcome"], document["reason"]) == ("not_attempted", "not_a_volume")
    [report] = bench.reports()
    assert len(sources(report)) == 4
    assert problems(report) == []


def test_image_that_the_detector_does_not_accept_declines_the_series(bench: SeriesBench) -> None:
    series = CTSeries()
    bench.receive(*series.slices(1, 4), series.slice(5, PhotometricInterpretation="RGB"))
    bench.work(QUIET + 2)
    [document] = bench.documents()
    assert document["reason"] == "unsupported_photometric_interpretation"


def test_image_that_cannot_be_decoded_fails_the_series(bench: SeriesBench) -> None:
    series = CTSeries()
    bench.receive(*series.slices(1, 4), series.slice(5, HighBit=3))
    bench.work(QUIET + 2)
    [document] = bench.documents()
    assert (document["outcome"], document["reason"]) == ("failed", "pixels_undecodable")


def test_image_whose_object_is_damaged_fails_the_series_and_loses_no_report(bench: SeriesBench) -> None:
    series = CTSeries()
    bench.receive(*series.slices(1, 4))
    bench.look()
    damage(bench.rooms.objects_folder, bench.rooms.kept_objects()[2])
    bench.work(QUIET + 2)
    [document] = bench.documents()
    assert (document["outcome"], document["reason"]) == ("failed", "image_unreadable")
    assert len(document["source"]["images"]) == 3
    assert [job.state for job in bench.jobs()] == [JobState.DONE]


def test_failing_detector_fails_the_series_after_its_tries(tmp_path: Path) -> None:
    with SeriesBench(tmp_path, toys.RaisesOnBright(), detect=DetectSettings(max_attempts=2)) as bench:
        series = CTSeries(bright=[2])
        bench.receive(*series.slices(1, 4))
        bench.work(QUIET + 1)
        assert [(job.state, job.attempts) for job in bench.jobs()] == [(JobState.READY, 1)]
        assert bench.documents() == []
        bench.work(10)
        assert [(job.state, job.error) for job in bench.jobs()] == [(JobState.DEAD, "model_raised")]
        [document] = bench.documents()
        assert (document["outcome"], document["reason"]) == ("failed", "model_raised")


def test_detector_that_does_not_load_gives_one_report_a_series_and_not_one_an_image(tmp_path: Path) -> None:
    folder = toys.install_series(tmp_path / "models", "toy-bright", toys.Bright())
    (folder / "weights.pt2").write_bytes(b"other")
    with SeriesBench(tmp_path, detect=DetectSettings(max_attempts=1)) as bench:
        bench.receive(*CTSeries().slices(1, 4))
        bench.work(QUIET + 2)
        [document] = bench.documents()
        assert (document["outcome"], document["reason"]) == ("failed", "model_unavailable")
        assert len(document["source"]["images"]) == 4
        assert "weights.pt2" in bench.refused[0]


def test_mended_model_and_retried_job_give_a_report_that_names_the_failed_one(tmp_path: Path) -> None:
    folder = toys.install_series(tmp_path / "models", "toy-bright", toys.Bright())
    weights = (folder / "weights.pt2").read_bytes()
    (folder / "weights.pt2").write_bytes(b"other")
    with SeriesBench(tmp_path, detect=DetectSettings(max_attempts=1)) as bench:
        bench.receive(*CTSeries().slices(1, 4))
        bench.work(QUIET + 2)
        (folder / "weights.pt2").write_bytes(weights)
        bench.analyser._tried.clear()
        [job] = bench.jobs()
        assert job.state is JobState.DEAD
        with bench.rooms.engine.begin() as connection:
            bench.rooms.queue.retry(connection, job.job)
        bench.work(1)
        failed, mended = bench.reports()
        assert predecessors(mended) == [failed.SOPInstanceUID]
        assert [document["outcome"] for document in bench.documents()] == ["failed", "no_finding"]


def test_retry_of_a_job_that_a_later_one_has_followed_changes_nothing(tmp_path: Path, bright: Path) -> None:
    (tmp_path / "models").symlink_to(bright)
    with SeriesBench(tmp_path) as bench:
        series = CTSeries()
        bench.receive(*series.slices(1, 4))
        bench.work(QUIET + 2)
        bench.receive(series.slice(5))
        bench.work(QUIET + 2)
        with bench.rooms.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE jobs SET state = 'ready', due = 0 WHERE kind = 'series' AND job IN "
                "(SELECT min(job) FROM jobs WHERE kind = 'series')"
            )
        bench.work(2)
        assert [job.state for job in bench.jobs()] == [JobState.DONE] * 2
        assert len(bench.documents()) == 2


def test_rules_decide_image_by_image_which_the_detector_sees(tmp_path: Path, bright: Path) -> None:
    (tmp_path / "models").symlink_to(bright)
    axial = RULE.model_copy(update={"match": {"ImageType": "re:.*AXIAL.*"}})
    with SeriesBench(tmp_path, rules=(axial,)) as bench:
        series = CTSeries()
        localizer = series.slice(50, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        bench.receive(
            localizer, *(series.slice(number, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]) for number in range(4))
        )
        bench.work(QUIET + 2)
        [report] = bench.reports()
        assert len(sources(report)) == 4
        assert str(localizer.SOPInstanceUID) not in sources(report)


def test_node_that_stops_gives_the_series_back_between_two_images_and_this_is_no_try(bench: SeriesBench) -> None:
    bench.receive(*CTSeries().slices(1, 6))
    bench.look()
    bench.rooms.now += QUIET
    asked = iter(range(100))
    bench.series._stopping = lambda: next(asked) == 9  # after six headers and three decoded images
    assert bench.series.step() == 1
    assert [(job.state, job.attempts, job.error) for job in bench.jobs()] == [(JobState.READY, 0, "stopping")]
    assert next(asked) == 10
    bench.series._stopping = lambda: False
    bench.work()
    assert [(job.state, job.attempts) for job in bench.jobs()] == [(JobState.DONE, 1)]
    assert len(bench.documents()) == 1


def test_log_and_trail_say_what_happened_in_pseudonyms(bench: SeriesBench) -> None:
    series = CTSeries()
    bench.receive(*series.slices(1, 4))
    bench.work(QUIET + 2)
    assert bench.log.events() == ["image_kept"] * 4 + ["series_complete", "series_analysed"]
    assert series.series not in str(bench.log.lines)
    events = [entry["event"].split()[1] for entry in bench.rooms.entries()]
    assert events == ["image_received"] * 4 + ["image_analysed", "report_created"]
