"""A CT series of 300 slices over three associations becomes one job and one report; a late image makes a second one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from support import validators
from support.crash import sources
from support.ct import CTSeries
from support.node import wait_for
from support.report_checks import problems
from support.series_site import SeriesSite, series_site

QUIET, PAUSE = 8.0, 2.0

PICTURES = {"Level": "Instance", "Query": {"Modality": "OT"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesSite]:
    with series_site(tmp_path_factory.mktemp("series"), QUIET, CTSeries(bright=[151, 152, 153])) as site:
        yield site


@pytest.fixture(scope="module")
def first(site: SeriesSite) -> list[Dataset]:
    """The 300 slices, sent in three associations with pauses, back to front, and reported on."""
    slices = site.series.slices(1, 300)
    for part in (slices[200:], slices[:100], slices[100:200]):
        site.send(part)
        if part is not slices[100:200]:
            [waiting] = wait_for(site.jobs, 10, "the series is listed")
            assert waiting["state"] == "waiting"
            time.sleep(PAUSE)
    wait_for(site.pacs.report_files, 4 * QUIET, "the report is at the PACS")
    return slices


def test_slices_of_three_associations_become_one_job_and_one_report(site: SeriesSite, first: list[Dataset]) -> None:
    [job] = site.jobs()
    assert (job["state"], job["attempts"]) == ("done", 1)
    [complete] = site.node.events("series_complete")
    [analysed] = site.node.events("series_analysed")
    assert (complete["count"], analysed["count"], analysed["outcome"]) == (300, 300, "finding")
    [path] = site.reports()
    report = pydicom.dcmread(path)
    assert sources(report) == [item.SOPInstanceUID for item in first]
    assert "PredecessorDocumentsSequence" not in report
    [document] = site.node.results()
    [finding] = document["findings"]
    assert document["source"]["images"][finding["region"]["frame"] - 1] == first[150].SOPInstanceUID
    assert [item["object"] for item in document["secondary"]] == ["sc1"]
    [found] = wait_for(lambda: site.pacs.post("/tools/find", PICTURES), 10, "the picture is at the PACS")
    picture = site.pacs.get(f"/instances/{found}/simplified-tags")
    assert picture["SourceImageSequence"][0]["ReferencedSOPInstanceUID"] == first[150].SOPInstanceUID


def test_waiting_series_is_listed_by_its_pseudonym_with_count_and_since_when(
    site: SeriesSite, first: list[Dataset]
) -> None:
    other = CTSeries()
    before = time.time()
    site.send(other.slices(1, 5))

    def listed() -> bool:
        found = [row for row in site.jobs() if row["state"] == "waiting"]
        return bool(found) and found[0]["waiting"] == 5

    wait_for(listed, QUIET, "five images wait")
    [row] = [row for row in site.jobs() if row["state"] == "waiting"]
    assert (row["waiting"], row["kept"], row["generation"]) == (5, 5, 0)
    assert before - 1 <= row["since"] <= row["last"] <= time.time() + 1
    shown = site.node.run("jobs", "list").stdout
    assert str(row["series"]) in shown
    assert str(other.series) not in shown
    wait_for(lambda: not [job for job in site.jobs() if job["state"] != "done"], 4 * QUIET, "it is complete")


def test_late_image_gives_a_second_report_that_points_to_the_first(site: SeriesSite, first: list[Dataset]) -> None:
    late = site.series.slice(301)
    count = len(site.pacs.report_files())
    site.send([late])
    wait_for(lambda: len(site.pacs.report_files()) > count, 4 * QUIET, "the second report is at the PACS")
    before, after = (pydicom.dcmread(path) for path in site.reports()[-2:])
    assert sources(after) == [*sources(before), late.SOPInstanceUID]
    [study] = after.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [reference] = series.ReferencedSOPSequence
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSOPClassUID, series.SeriesInstanceUID) == (
        before.SOPInstanceUID,
        before.SOPClassUID,
        before.SeriesInstanceUID,
    )
    time.sleep(QUIET)
    assert len(site.pacs.report_files()) == count + 1  # and there it ends


def test_reports_on_series_satisfy_every_validator(site: SeriesSite, first: list[Dataset]) -> None:
    for path in site.reports():
        status, lines = validators.dciodvfy(path)
        assert (status, [line for line in lines if line.startswith("Error")]) == (0, [])
        assert problems(highdicom.sr.srread(path)) == []


def test_after_all_of_it_the_node_is_sound(site: SeriesSite, first: list[Dataset]) -> None:
    site.node.await_idle(30)
    wait_for(lambda: site.node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    site.node.assert_sound()
