"""The shipped ct-nodule in a running node: a slab comes from dcmtk, its nodule goes to the PACS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from support import films, validators
from support.crash import sources
from support.ct import CTSeries
from support.node import wait_for
from support.report_checks import problems
from support.series_site import SeriesSite, series_site

from radnode.report.masks import fill

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
from ct.lidc import Reading, read_nodules  # noqa: E402 (the training is a folder of scripts, not a package)

sys.path.remove(SCRIPTS)

DIAMETER = CodedConcept("81827009", "SCT", "Diameter")
VOLUME = CodedConcept("118565006", "SCT", "Volume")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesSite]:
    folder, kinds = tmp_path_factory.mktemp("nodule"), ("sc", "gsps", "seg")
    with series_site(folder, 3.0, CTSeries(), detector="ct-nodule", secondary=kinds) as site:
        yield site


@pytest.fixture(scope="module")
def slices() -> list[Dataset]:
    """The bundled slab, from the feet up."""
    return [pydicom.dcmread(path) for path in films.CT]


@pytest.fixture(scope="module")
def report(site: SeriesSite, slices: list[Dataset]) -> Path:
    """The report on the slab, sent head first."""
    site.send(slices[::-1])
    return wait_for(site.pacs.report_files, 240, "the report is at the PACS")[0]


def readings(slices: list[Dataset]) -> list[Reading]:
    spacing = float(slices[0].PixelSpacing[0]), float(slices[0].PixelSpacing[1])
    [found] = read_nodules(films.CT[0].parent / "readers.xml", spacing)
    return found


def test_series_from_dcmtk_gives_a_report_with_the_nodule_where_its_readers_drew_it(
    report: Path, slices: list[Dataset]
) -> None:
    document = highdicom.sr.srread(report)
    assert sources(document) == [each.SOPInstanceUID for each in slices]
    [group] = document.content.get_planar_roi_measurement_groups()
    assert (group.finding_type.value, group.finding_sites[0].value.value) == ("27925004", "39607008")
    [reference] = group.roi.ContentSequence[0].ReferencedSOPSequence
    uid = reference.ReferencedSOPInstanceUID
    found = fill([group.roi.value.tolist()], 512, 512)
    column, row = np.argwhere(found.T).mean(axis=0).round().astype(int)
    spacing = float(slices[0].PixelSpacing[0]), float(slices[0].PixelSpacing[1])
    drawn = [reading for reading in readings(slices) if uid in reading.outlines]
    assert len(drawn) == 4
    assert all(fill(reading.outlines[uid], 512, 512)[row, column] for reading in drawn)
    [diameter] = group.get_measurements(DIAMETER)
    assert diameter.value == pytest.approx(np.mean([each.diameter(spacing, uid) for each in drawn]), rel=0.1)
    [volume] = group.get_measurements(VOLUME)
    assert 3_000 < volume.value < 15_000
    assert volume.unit.value == "mm3"


def test_report_says_that_the_detector_is_experimental(report: Path) -> None:
    status, lines = validators.dciodvfy(report)
    assert (status, [line for line in lines if line.startswith("Error")]) == (0, [])
    document = highdicom.sr.srread(report)
    assert problems(document) == []
    assert "experimental" in {str(element.value) for element in document.iterall() if element.keyword == "TextValue"}


def test_results_have_the_outline_of_every_slice(site: SeriesSite, report: Path) -> None:
    [result] = site.node.results()
    [finding] = result["findings"]
    assert result["model"]["name"] == "ct-nodule"
    assert finding["volume_mm3"] > 3_000
    frames = [outline["frame"] for outline in finding["outlines"]]
    assert frames == sorted(frames)
    assert finding["region"]["frame"] in frames
    assert len(set(frames)) >= 6


def test_segmentation_at_the_pacs_has_the_pixels_of_the_outlines(
    site: SeriesSite, report: Path, slices: list[Dataset]
) -> None:
    query = {"Level": "Instance", "Query": {"Modality": "SEG"}}
    [found] = wait_for(lambda: site.pacs.post("/tools/find", query), 30, "the segmentation is at the PACS")
    path = site.folder / "segmentation.dcm"
    path.write_bytes(site.pacs.get_bytes(f"/instances/{found}/file"))
    status, lines = validators.dciodvfy(path)
    assert (status, [line for line in lines if line.startswith("Error")]) == (0, [])
    assert validators.dcentvfy([path, report, *films.CT]) == []
    seg = highdicom.seg.segread(path)
    [result] = site.node.results()
    [finding] = result["findings"]
    uids = [str(each.SOPInstanceUID) for each in slices]
    assert result["source"]["images"] == uids
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)[..., 0].astype(bool)
    for frame, mask in enumerate(pixels, 1):
        contours = [outline["points"] for outline in finding["outlines"] if outline["frame"] == frame]
        expected = fill(contours, 512, 512) if contours else np.zeros((512, 512), dtype=bool)
        np.testing.assert_array_equal(mask, expected)
    assert pixels.sum() * np.prod(seg.get_volume().spacing) == pytest.approx(finding["volume_mm3"], rel=0.25)
    [group] = highdicom.sr.srread(report).content.get_planar_roi_measurement_groups()
    assert seg.get_segment_description(1).tracking_uid == group.tracking_uid
