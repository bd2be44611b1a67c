"""Whatever a detector finds survives report, bytes and a foreign reader unchanged."""

from __future__ import annotations

import io
from collections.abc import Sequence

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from support import films, highdicom_tree
from support.analyses import MODEL, report
from support.ct import CTSeries
from support.enhanced import enhanced_ct
from support.report_checks import problems

from radnode.model import Analysis, Code, Finding, Outcome, Region
from radnode.report.sr import encode_report
from radnode.report.uids import derive_uid, tracking_uid

CALIBRATED = {"PixelSpacing": [0.5, 0.5], "PixelSpacingCalibrationType": "FIDUCIAL"}
FRAMES = 3
# The headers that a report is on; how many frames or images a region can name (0: none).
SOURCES: dict[str, tuple[list[Dataset], int]] = {
    "film": ([films.received(pydicom.dcmread(films.OPACITY))], 0),
    "calibrated film": ([films.received(films.fresh(films.OPACITY, **CALIBRATED))], 0),
    "series": ([films.received(each) for each in CTSeries().slices(1, FRAMES)], FRAMES),
    "enhanced": ([enhanced_ct(FRAMES)], FRAMES),
}
CERTAINTY = highdicom.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
DIAMETER = highdicom.sr.CodedConcept("81827009", "SCT", "Diameter")
VOLUME = highdicom.sr.CodedConcept("118565006", "SCT", "Volume")

words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=16)
codes = st.builds(Code, words, words, words)
coordinates = st.floats(0, 8192, width=32)
points = st.tuples(coordinates, coordinates)


@st.composite
def regions(draw: st.DrawFn, frames: int) -> Region:
    frame = draw(st.integers(1, frames)) if frames else None
    if draw(st.booleans()):
        (x0, y0), (x1, y1) = draw(points), draw(points)
        return Region("box", ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), frame)
    return Region("contour", tuple(draw(st.lists(points, min_size=3, max_size=12, unique=True))), frame)


@st.composite
def findings(draw: st.DrawFn, frames: int) -> Finding:
    site = draw(st.none() | codes)
    return Finding(
        code=draw(codes),
        score=draw(st.floats(0, 1)),
        site=site,
        laterality=None if site is None else draw(st.none() | codes),
        region=draw(st.none() | regions(frames)),
        diameter_mm=draw(st.none() | st.floats(0.001, 500)),
        volume_mm3=draw(st.none() | st.floats(0.001, 1e6)),
    )


@st.composite
def analyses(draw: st.DrawFn) -> tuple[str, Analysis]:
    source = draw(st.sampled_from(list(SOURCES)))
    found = tuple(draw(st.lists(findings(SOURCES[source][1]), max_size=5)))
    outcome = Outcome.FINDING if found else Outcome.NO_FINDING
    return source, Analysis(outcome, MODEL, draw(codes), draw(st.floats(0, 1)), findings=found)


def triple(code: highdicom.sr.CodedConcept | Code | None) -> tuple[str, str, str] | None:
    if code is None:
        return None
    scheme = code.scheme if isinstance(code, Code) else code.scheme_designator
    return code.value, scheme, code.meaning


def check(group: object, finding: Finding, sources: Sequence[Dataset], in_patient: bool) -> None:
    """What highdicom reads of a group is the finding."""
    assert triple(group.finding_type) == triple(finding.code)
    sites = [(triple(site.value), triple(site.laterality)) for site in group.finding_sites]
    assert sites == ([] if finding.site is None else [(triple(finding.site), triple(finding.laterality))])
    (certainty,) = group.get_measurements(CERTAINTY)
    assert abs(certainty.value - 100 * finding.score) <= 0.5e-4
    diameters = group.get_measurements(DIAMETER)
    measurable = finding.region is not None or (in_patient and finding.diameter_mm is not None)
    assert [each.unit.value for each in diameters] == ["mm" if in_patient else "{pixels}"] * measurable
    if in_patient and finding.diameter_mm is not None:
        assert abs(diameters[0].value - finding.diameter_mm) <= 0.5e-3
    volumes = group.get_measurements(VOLUME)
    expected = [finding.volume_mm3] if measurable and in_patient and finding.volume_mm3 is not None else []
    assert [each.value for each in volumes] == pytest.approx(expected, abs=0.5e-3)
    if finding.region is not None:
        closed = [*finding.region.points, finding.region.points[0]]
        assert np.array_equal(group.roi.value, np.asarray(closed, dtype=np.float32))
        number = finding.region.frame
        source = sources[(number or 1) - 1] if len(sources) > 1 else sources[0]
        (reference,) = group.roi.ContentSequence[0].ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.get("ReferencedFrameNumber") == (number if len(sources) == 1 else None)


@settings(max_examples=120, deadline=None)
@given(analyses())
def test_findings_survive_to_bytes_and_back(made: tuple[str, Analysis]) -> None:
    name, analysis = made
    sources, _ = SOURCES[name]
    blob = encode_report(report(sources, analysis))
    assert blob == encode_report(report(sources, analysis))
    assert problems(pydicom.dcmread(io.BytesIO(blob))) == []

    content = highdicom.sr.srread(io.BytesIO(blob)).content
    read = {
        group.tracking_uid: group
        for group in (*content.get_planar_roi_measurement_groups(), *content.get_image_measurement_groups())
    }
    uids = [source.SOPInstanceUID for source in sources]
    assert set(read) == {tracking_uid(uids, MODEL.digest, index) for index in range(len(analysis.findings) + 1)}
    (score,) = read[tracking_uid(uids, MODEL.digest, 0)].get_measurements(CERTAINTY)
    assert abs(score.value - 100 * analysis.score) <= 0.5e-4
    for index, finding in enumerate(analysis.findings, 1):
        check(read[tracking_uid(uids, MODEL.digest, index)], finding, sources, in_patient=name != "film")


@settings(max_examples=15, deadline=None)
@given(analyses())
def test_the_tree_is_the_one_that_highdicom_builds(made: tuple[str, Analysis]) -> None:
    name, analysis = made
    sources, _ = SOURCES[name]
    buffer = io.BytesIO()
    highdicom_tree.measurement_report(sources, analysis).save_as(buffer, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    theirs = pydicom.dcmread(buffer, force=True).ContentSequence
    ours = pydicom.dcmread(io.BytesIO(encode_report(report(sources, analysis)))).ContentSequence
    assert [item.to_json_dict() for item in ours] == [item.to_json_dict() for item in theirs]


@given(st.lists(st.text(max_size=20), max_size=4), st.lists(st.text(max_size=20), max_size=4))
def test_derived_uids_are_equal_only_for_equal_parts(one: list[str], other: list[str]) -> None:
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)
    assert pydicom.uid.UID(derive_uid(*one)).is_valid
