"""Whatever a detector finds survives report, bytes and a foreign reader unchanged."""

from __future__ import annotations

import io

import highdicom
import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from support import films
from support.analyses import MODEL, report
from support.report_checks import problems

from radnode.model import Analysis, Code, Finding, Outcome, Region
from radnode.report.sr import encode_report
from radnode.report.uids import derive_uid, tracking_uid

SOURCE = films.received(pydicom.dcmread(films.OPACITY))
CERTAINTY = highdicom.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
DIAMETER = highdicom.sr.CodedConcept("81827009", "SCT", "Diameter")

words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=16)
codes = st.builds(Code, words, words, words)
coordinates = st.floats(0, 8192, width=32)
points = st.tuples(coordinates, coordinates)


@st.composite
def boxes(draw: st.DrawFn) -> Region:
    (x0, y0), (x1, y1) = draw(points), draw(points)
    return Region("box", ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


contours = st.builds(Region, st.just("contour"), st.lists(points, min_size=3, max_size=12, unique=True).map(tuple))
findings = st.builds(
    Finding,
    code=codes,
    score=st.floats(0, 1),
    site=codes,
    laterality=st.none() | codes,
    region=st.none() | boxes() | contours,
    diameter_mm=st.none() | st.floats(0.001, 500),
)


def triple(code: highdicom.sr.CodedConcept) -> tuple[str, str, str]:
    return code.value, code.scheme_designator, code.meaning


def given_triple(code: Code) -> tuple[str, str, str]:
    return code.value, code.scheme, code.meaning


@settings(max_examples=60)
@given(st.lists(findings, max_size=5), codes, st.floats(0, 1))
def test_findings_survive_to_bytes_and_back(found: list[Finding], target: Code, score: float) -> None:
    outcome = Outcome.FINDING if found else Outcome.NO_FINDING
    analysis = Analysis(outcome, MODEL, target, score, findings=tuple(found))
    blob = encode_report(report(SOURCE, analysis))
    assert blob == encode_report(report(SOURCE, analysis))
    assert problems(pydicom.dcmread(io.BytesIO(blob))) == []

    content = highdicom.sr.srread(io.BytesIO(blob)).content
    read = {
        group.tracking_uid: group
        for group in (*content.get_planar_roi_measurement_groups(), *content.get_image_measurement_groups())
    }
    assert len(read) == len(found) + 1
    for index, finding in enumerate(found, 1):
        group = read[tracking_uid([SOURCE.SOPInstanceUID], MODEL.digest, index)]
        assert triple(group.finding_type) == given_triple(finding.code)
        (site,) = group.finding_sites
        assert triple(site.value) == given_triple(finding.site)
        assert (None if site.laterality is None else triple(site.laterality)) == (
            None if finding.laterality is None else given_triple(finding.laterality)
        )
        (certainty,) = group.get_measurements(CERTAINTY)
        assert abs(certainty.value - 100 * finding.score) <= 0.5e-4
        diameters = group.get_measurements(DIAMETER)
        if finding.diameter_mm is not None:
            assert abs(diameters[0].value - finding.diameter_mm) <= 0.5e-3
            assert diameters[0].unit.value == "mm"
        else:
            assert [each.unit.value for each in diameters] == ["{pixels}"] * (finding.region is not None)
        if finding.region is not None:
            closed = [*finding.region.points, finding.region.points[0]]
            assert np.array_equal(group.roi.value, np.asarray(closed, dtype=np.float32))
            assert group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == (
                SOURCE.SOPInstanceUID
            )


@given(st.lists(st.text(max_size=20), max_size=4), st.lists(st.text(max_size=20), max_size=4))
def test_derived_uids_are_equal_only_for_equal_parts(one: list[str], other: list[str]) -> None:
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)
    assert pydicom.uid.UID(derive_uid(*one)).is_valid
