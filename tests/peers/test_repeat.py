"""A newer version of a detector looks at what an older one has seen; what is sent or looked at again makes no twin."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from support import films, toys, validators
from support.ct import CTSeries
from support.node import NodeProcess, Orthanc, free_port, wait_for
from support.report_checks import problems
from support.series_site import RULE

from radnode.detect.package import sign_package

FILM, SERIES = "toy-plain", "toy-bright"
OLD, NEW = "0.0.1", "0.0.2"


@dataclass
class Site:
    """A node with a detector of films and one of series, its PACS, and one study for each of them."""

    node: NodeProcess
    pacs: Orthanc
    folder: Path
    film: Dataset = field(default_factory=lambda: films.fresh(films.NORMAL, **films.UTF_8))
    slices: list[Dataset] = field(default_factory=lambda: CTSeries(bright=[3]).slices(1, 5))

    def send(self, *datasets: Dataset) -> None:
        paths = [self.folder / f"{dataset.SOPInstanceUID}.dcm" for dataset in datasets]
        for path, dataset in zip(paths, datasets, strict=True):
            path.write_bytes(films.file_bytes(dataset))
        sent = self.node.storescu(paths)
        assert sent.returncode == 0, sent.stderr

    def held(self) -> Counter[str]:
        """Return how many objects of each modality the PACS holds."""
        tags = [self.pacs.get(f"/instances/{found}/simplified-tags") for found in self.pacs.get("/instances")]
        return Counter(item["Modality"] for item in tags)

    def settled(self) -> bool:
        """Say whether nothing waits: no analysis, no series, no delivery."""
        return not self.node.rows("jobs", "list")

    def reports(self, StudyInstanceUID: str) -> dict[str, Dataset]:
        """Return the reports on a study by the version that made them."""
        found = [report for report in self.pacs.reports() if report.StudyInstanceUID == StudyInstanceUID]
        return {report.ContributingEquipmentSequence[0].SoftwareVersions: report for report in found}

    def renew(self) -> None:
        """Add and activate the next version of both detectors, trained anew, while the node runs."""
        for name in (FILM, SERIES):
            package = self.folder / name
            shutil.copytree(self.node.folder / "models" / name / OLD, package)
            manifest = (package / "model.toml").read_text()
            manifest = manifest.replace(f'version = "{OLD}"', f'version = "{NEW}"').replace('"2.25.', '"2.25.9')
            (package / "model.toml").write_text(manifest)
            sign_package(package, toys.KEY, "tests")
            for step in (("add", package), ("activate", name, NEW)):
                done = self.node.run("models", *step)
                assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("repeat"), free_port()
    settings = {"RADNODE_COMPLETION__QUIET_SECONDS": "2"}
    with (
        NodeProcess(folder / "node", pacs_port=port, overrides=settings) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        toys.install(node.folder / "models", FILM, toys.Raises())
        toys.install_series(node.folder / "models", SERIES, toys.Bright())
        text = node.config.read_text().replace("match = {} ", 'match = { Modality = "CR" } ')
        node.config.write_text(text.replace('detect = ["cxr-opacity"]', f'detect = ["{FILM}"]') + RULE)
        node.start()
        yield Site(node, pacs, folder)


@pytest.fixture(scope="module")
def seen(site: Site) -> dict[str, dict[str, Any]]:
    """What the older version said of both, by study; its reports and pictures are at the PACS."""
    site.send(site.film)
    site.send(*site.slices)
    wait_for(lambda: site.held() == {"SR": 2, "OT": 2} and site.settled(), 60, "reports and pictures are at the PACS")
    return {row["source"]["StudyInstanceUID"]: row for row in site.node.results()}


def test_same_study_sent_again_leaves_the_pacs_as_it_was(site: Site, seen: dict[str, dict[str, Any]]) -> None:
    before = set(site.pacs.get("/instances"))
    site.send(site.film)
    site.send(*site.slices)
    known = [line for line in site.node.log() if line["event"] == "image_known"]
    assert len(known) == 1 + len(site.slices)
    wait_for(site.settled, 30, "nothing waits")
    assert set(site.pacs.get("/instances")) == before


def test_same_version_that_looks_again_says_nothing_new(site: Site, seen: dict[str, dict[str, Any]]) -> None:
    before = set(site.pacs.get("/instances"))
    done = site.node.run("jobs", "repeat", *(row["id"] for row in seen.values()))
    assert (done.returncode, done.stdout) == (0, "2 analyses are due again.\n"), done.stderr
    wait_for(site.settled, 60, "both were looked at again")
    assert len(site.node.results()) == 2
    assert set(site.pacs.get("/instances")) == before


def test_newer_version_makes_new_reports_that_name_those_before_them(
    site: Site, seen: dict[str, dict[str, Any]]
) -> None:
    site.renew()
    film, series = (seen[item.StudyInstanceUID]["id"] for item in (site.film, site.slices[0]))
    assert site.node.run("jobs", "repeat", film).stdout == "1 analysis is due again.\n"
    assert site.node.run("jobs", "repeat", "--model", f"{SERIES} {OLD}").returncode == 0
    wait_for(lambda: site.held() == {"SR": 4, "OT": 4} and site.settled(), 60, "the new ones are at the PACS")
    for row in seen.values():
        made = site.reports(row["source"]["StudyInstanceUID"])
        assert set(made) == {OLD, NEW}
        assert "PredecessorDocumentsSequence" not in made[OLD]
        [study] = made[NEW].PredecessorDocumentsSequence
        [named] = study.ReferencedSeriesSequence
        assert [item.ReferencedSOPInstanceUID for item in named.ReferencedSOPSequence] == [made[OLD].SOPInstanceUID]
        assert named.SeriesInstanceUID == made[OLD].SeriesInstanceUID != made[NEW].SeriesInstanceUID
        assert problems(made[NEW]) == []
        devices = [report.ContributingEquipmentSequence[0].DeviceUID for report in made.values()]
        assert len(set(devices)) == 2
    newer = [row for row in site.node.results() if row["model"]["version"] == NEW]
    assert {row["source"]["StudyInstanceUID"] for row in newer} == set(seen)
    assert series not in {row["id"] for row in newer}


def test_new_reports_are_valid_and_their_trail_says_who_asked(site: Site, seen: dict[str, dict[str, Any]]) -> None:
    for path in site.pacs.report_files():
        status, lines = validators.dciodvfy(path)
        assert (status, [line for line in lines if line.startswith("Error")]) == (0, [])
        assert pydicom.dcmread(path).CompletionFlag == "COMPLETE"
    asked = [entry for entry in site.node.trail("job_changed") if entry["detail"]["change"] == "repeated"]
    assert [entry["detail"]["job_kind"] for entry in asked].count("series") == 2
    assert len(asked) == 4
    assert {entry["study"] for entry in asked} == {entry["study"] for entry in site.node.trail("report_created")}


def test_unknown_result_and_no_result_are_refused_in_a_sentence(site: Site) -> None:
    unknown = site.node.run("jobs", "repeat", "0123456789abcdef")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "0123456789abcdef" in unknown.stderr
    assert site.node.run("jobs", "repeat").returncode == 2
    assert site.node.run("jobs", "repeat", "--model", "nobody 1.0.0").stdout == "0 analyses are due again.\n"
