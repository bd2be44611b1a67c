"""A CT series of 300 slices over three associations becomes one job and one report; a late image makes a second one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from support import toys, validators
from support.crash import CrashNode, sources
from support.ct import CTSeries
from support.films import file_bytes
from support.node import Orthanc, free_port, wait_for
from support.report_checks import problems

QUIET, PAUSE = 8.0, 2.0
RULE = """
[[rules]]
match = { Modality = "CT" }
detect = ["toy-bright"]
deliver = ["pacs"]
"""


@dataclass
class Site:
    """A node with a detector of whole series, its PACS, and the series that was sent to it."""

    node: CrashNode
    pacs: Orthanc
    folder: Path
    series: CTSeries

    def send(self, slices: list[Dataset]) -> None:
        """Send slices with Debian's storescu over one association."""
        paths = []
        for item in slices:
            paths.append(self.folder / f"{item.SOPInstanceUID}.dcm")
            paths[-1].write_bytes(file_bytes(item))
        sent = self.node.storescu(paths)
        assert sent.returncode == 0, sent.stderr

    def jobs(self) -> list[dict[str, object]]:
        """Return what `radnode jobs list --all --json` says of series."""
        listed = self.node.run("jobs", "list", "--all", "--json")
        assert listed.returncode == 0, listed.stderr
        return [row for row in json.loads(listed.stdout) if row["kind"] == "series"]

    def reports(self) -> list[Path]:
        """Return the reports at the PACS, that on the fewest images first."""
        return sorted(self.pacs.report_files(), key=lambda path: len(sources(pydicom.dcmread(path))))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("series")
    port = free_port()
    settings = {"RADNODE_COMPLETION__QUIET_SECONDS": str(QUIET)}
    with (
        CrashNode(folder / "node", pacs_port=port, overrides=settings) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        toys.install_series(node.folder / "models", "toy-bright", toys.Bright())
        text = node.config.read_text().replace("match = {} ", 'match = { Modality = "DX" } ')
        node.config.write_text(text + RULE)
        node.start()
        yield Site(node, pacs, folder, CTSeries(bright=[151, 152, 153]))


@pytest.fixture(scope="module")
def first(site: Site) -> list[Dataset]:
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


def test_slices_of_three_associations_become_one_job_and_one_report(site: Site, first: list[Dataset]) -> None:
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


def test_waiting_series_is_listed_by_its_pseudonym_with_count_and_since_when(site: Site, first: list[Dataset]) -> None:
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


def test_late_image_gives_a_second_report_that_points_to_the_first(site: Site, first: list[Dataset]) -> None:
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


def test_reports_on_series_satisfy_every_validator(site: Site, first: list[Dataset]) -> None:
    for path in site.reports():
        status, lines = validators.dciodvfy(path)
        assert (status, [line for line in lines if line.startswith("Error")]) == (0, [])
        assert problems(highdicom.sr.srread(path)) == []


def test_after_all_of_it_the_node_is_sound(site: Site, first: list[Dataset]) -> None:
    site.node.await_idle(30)
    wait_for(lambda: site.node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    site.node.assert_sound()
