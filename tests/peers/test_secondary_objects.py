"""Secondary objects as other people's software sees them, and a PACS that holds source, report and picture together."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from support import films, validators
from support.analyses import FINDING, NO_FINDING, OPACITY, disc, lesion, report
from support.enhanced import enhanced_ct
from support.node import NodeProcess, Orthanc, free_port, wait_for
from support.secondary import secondary, slab

from radnode.model import Finding, Region
from radnode.report.sr import encode_report

BOX = ((100.0, 200.0), (140.0, 200.0), (140.0, 230.0), (100.0, 230.0))
NODULES = tuple(Finding(OPACITY, 0.8, region=Region("box", BOX, frame), diameter_mm=28.1) for frame in (3, 9))
MASKED = (
    lesion(0.9, *(disc(150, 220, radius, frame) for frame, radius in ((3, 8), (4, 12), (5, 14), (6, 9)))),
    lesion(0.6, *(disc(300, 260, radius, frame) for frame, radius in ((9, 5), (10, 6)))),
)
SMALL = (lesion(0.9, *(disc(30, 20, radius, frame) for frame, radius in ((2, 4), (3, 8), (4, 5)))), NODULES[0])
SERIES = replace(FINDING, peak=None, findings=NODULES)
CASES = {
    "dx-japanese": lambda: ([films.fresh(films.OPACITY, **films.JAPANESE)], FINDING),
    "dx-inverse": lambda: ([films.fresh(films.OPACITY, PhotometricInterpretation="MONOCHROME1")], FINDING),
    "cr-utf8": lambda: ([films.fresh(films.NORMAL, **films.UTF_8)], FINDING),
    "cr-none": lambda: ([films.fresh(films.NORMAL, **films.NO_CHARACTER_SET)], NO_FINDING),
    "hand-korean": lambda: ([films.fresh(films.NORMAL, BodyPartExamined="HAND", **films.KOREAN)], FINDING),
    "mr-without-body-part": lambda: ([films.fresh(films.MR, **films.LATIN)], FINDING),
    "ct": lambda: (slab(), SERIES),
    "ct-masks-chinese": lambda: (slab(**films.GB18030), replace(SERIES, findings=MASKED)),
    "enhanced-masks": lambda: ([enhanced_ct(9)], replace(SERIES, findings=SMALL)),
}
# docs/conformance.md explains each of them.
KNOWN_DCIODVFY = (
    "that would be needed to build DICOMDIR",
    "DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",
    "<----> - Retired Person Name form",
    "should be absent (not empty) if an unpaired body part, and have a value if a paired body part",
)


@dataclass
class Case:
    """Files of the sources, of their report and of its secondary objects."""

    sources: list[Path]
    report: Path
    made: dict[str, Path]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    images, analysis = CASES[request.param]()
    sources = []
    for number, image in enumerate(images):
        sources.append(folder / f"source-{number}.dcm")
        sources[-1].write_bytes(films.file_bytes(image))
    headers = [films.received(image) for image in images]
    objects = {"sr": report(headers, analysis), **secondary(images, analysis)}
    made = {name: _write(folder / f"{name}.dcm", item) for name, item in objects.items()}
    return Case(sources, made.pop("sr"), made)


def _write(path: Path, item: Dataset) -> Path:
    path.write_bytes(encode_report(item))
    return path


def test_dciodvfy_finds_no_error_and_no_warning_but_the_documented(case: Case) -> None:
    assert case.made
    for name, path in case.made.items():
        status, lines = validators.dciodvfy(path)
        assert status == 0, (name, lines)
        assert not [line for line in lines if not line.endswith(KNOWN_DCIODVFY)], name


def test_dcentvfy_finds_one_patient_and_study_and_every_reference(case: Case) -> None:
    assert validators.dcentvfy([*case.sources, case.report, *case.made.values()]) == []


def test_dsrdump_reads_the_key_object_selection(case: Case) -> None:
    if not validators.has_dsrdump():
        pytest.skip("dcmtk is not installed")
    if "kos1" in case.made:
        status, output = validators.dsrdump(case.made["kos1"])
        assert status == 0, output
        assert "Key Object Selection Document" in output


@dataclass
class Site:
    """A node that makes every kind and forwards the films, and its PACS."""

    node: NodeProcess
    pacs: Orthanc
    folder: Path

    def send(self, dataset: Dataset) -> None:
        path = self.folder / f"{dataset.SOPInstanceUID}.dcm"
        path.write_bytes(films.file_bytes(dataset))
        sent = self.node.storescu([path])
        assert sent.returncode == 0, sent.stderr

    def study(self, StudyInstanceUID: str) -> list[dict[str, str]]:
        """Return what the PACS says of each instance of a study."""
        found = []
        for identifier in self.pacs.get("/instances"):
            tags = self.pacs.get(f"/instances/{identifier}/simplified-tags")
            if tags["StudyInstanceUID"] == StudyInstanceUID:
                found.append({**tags, "ID": identifier})
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("secondary")
    port = free_port()
    kinds = {"RADNODE_REPORT__SECONDARY": '["sc", "gsps", "kos"]'}
    with (
        NodeProcess(folder / "node", pacs_port=port, overrides=kinds) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.config.write_text(node.config.read_text().replace("forward = []", 'forward = ["pacs"]'))
        node.start()
        yield Site(node, pacs, folder)


def test_pacs_holds_source_report_and_picture_in_one_study_and_the_same_when_it_is_sent_again(site: Site) -> None:
    film = films.fresh(films.OPACITY, **films.UTF_8)
    site.send(film)
    wait_for(lambda: len(site.study(film.StudyInstanceUID)) == 5, 30, "source, report and three objects are there")
    held = site.study(film.StudyInstanceUID)
    assert Counter(item["Modality"] for item in held) == {"DX": 1, "SR": 1, "OT": 1, "PR": 1, "KO": 1}
    assert {item["PatientName"] for item in held} == {"山田^太郎"}
    assert len(site.pacs.get("/studies")) == 1

    site.send(film)
    wait_for(lambda: [line for line in site.node.log() if line["event"] == "image_known"], 10, "it is known")
    wait_for(lambda: not site.node.rows("jobs", "list"), 20, "nothing waits")
    assert {item["ID"] for item in site.study(film.StudyInstanceUID)} == {item["ID"] for item in held}


def test_pacs_renders_the_picture_as_it_was_made(site: Site) -> None:
    [result] = site.node.results()
    names = [item["object"] for item in result["secondary"]]
    assert names == ["sc1", "gsps1", "kos1"]
    assert [item["delivered"][0]["state"] for item in result["secondary"]] == ["delivered"] * 3
    [picture] = [item for item in site.study(result["source"]["StudyInstanceUID"]) if item["Modality"] == "OT"]
    assert picture["SOPInstanceUID"] == result["secondary"][0]["SOPInstanceUID"]
    rendered = np.asarray(Image.open(io.BytesIO(site.pacs.get_bytes(f"/instances/{picture['ID']}/preview"))))
    kept = pydicom.dcmread(io.BytesIO(site.pacs.get_bytes(f"/instances/{picture['ID']}/file")))
    np.testing.assert_array_equal(rendered, kept.pixel_array)


def test_trail_says_of_each_object_that_it_was_delivered(site: Site) -> None:
    [result] = site.node.results()
    delivered = [entry["detail"] for entry in site.node.trail("report_delivered")]
    assert {entry["result"] for entry in delivered} == {result["id"]}
    assert [entry.get("object", "report") for entry in delivered] == ["report", "sc1", "gsps1", "kos1"]
