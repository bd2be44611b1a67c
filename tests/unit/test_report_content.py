"""The content tree is what highdicom makes of the same findings, with all its checks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from support import films, highdicom_tree
from support.analyses import ANALYSES, BOX, CONTOUR, FINDING, MODEL, NO_FINDING, OPACITY, report
from support.report_checks import children

from radnode.model import Analysis, Finding, Outcome, Reason
from radnode.report import codes, items
from radnode.report.sr import encode_report


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(encode_report(dataset)))


def tree(dataset: Dataset) -> Dataset:
    root = Dataset()
    for keyword in ("ValueType", "ConceptNameCodeSequence", "ContinuityOfContent", "ContentTemplateSequence"):
        root[keyword] = dataset[keyword]
    root.ContentSequence = dataset.ContentSequence
    return root


SLICES = [films.received(pydicom.dcmread(path)) for path in films.CT]
FILM = films.received(pydicom.dcmread(films.OPACITY))
CALIBRATED = films.received(films.fresh(films.OPACITY, PixelSpacing=[0.7, 0.6], PixelSpacingCalibrationType="GEOMETRY"))
MAMMOGRAM = films.received(films.fresh(films.OPACITY, Modality="MG", ImageLaterality="R"))
TUNED = replace(MODEL, parameters=("threshold 0.4", "größer"))
IN_SERIES = replace(
    FINDING,
    model=TUNED,
    findings=(
        Finding(OPACITY, 0.9, region=replace(BOX, frame=8), diameter_mm=12.25),
        Finding(OPACITY, 0.8, FINDING.findings[0].site, region=replace(CONTOUR, frame=3)),
        Finding(OPACITY, 0.7),
    ),
)
CASES = {
    **{f"film {outcome}": ([FILM], analysis) for outcome, analysis in ANALYSES.items()},
    **{reason.value: ([FILM], Analysis.without_result(reason, MODEL, OPACITY)) for reason in Reason},
    "series": (SLICES, IN_SERIES),
    "series without finding": (SLICES, NO_FINDING),
    "calibrated": ([CALIBRATED], FINDING),
    "slice": (SLICES[:1], FINDING),
    "breast": ([MAMMOGRAM], FINDING),
    "long code": ([FILM], replace(FINDING, target=replace(OPACITY, value="17 characters and"))),
}


@pytest.mark.parametrize(("sources", "analysis"), CASES.values(), ids=list(CASES))
def test_tree_is_the_one_that_highdicom_builds(sources: Sequence[Dataset], analysis: Analysis) -> None:
    theirs = highdicom_tree.measurement_report(sources, analysis)
    ours = tree(reread(report(sources, analysis)))
    buffer = io.BytesIO()
    theirs.save_as(buffer, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    read = pydicom.dcmread(buffer, force=True)
    assert ours.to_json_dict() == tree(read).to_json_dict()


def test_meanings_of_equal_codes_are_not_mixed_up() -> None:
    for meaning in ("One", "Other"):
        finding = Finding(replace(OPACITY, meaning=meaning), 0.9)
        read = reread(report(FILM, replace(FINDING, findings=(finding,))))
        group = children(children(read, "126010")[0], "125007")[1]
        assert children(group, "121071")[0].ConceptCodeSequence[0].CodeMeaning == meaning


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (85.6, "85.6"),
        (100.0, "100"),
        (1 / 3, "0.33333333333333"),
        (1e300, "1e+300"),
        (123456789012345680.0, "1.2345678901e+17"),
        (1.2345678901234567e-300, "1.23456789e-300"),
    ],
)
def test_decimal_strings_have_sixteen_characters_at_most(value: float, text: str) -> None:
    assert items.decimal(value) == text
    assert len(text) <= 16


def test_every_reason_has_a_code_and_a_meaning_of_its_own() -> None:
    assert set(codes.REASONS) == set(Reason)
    found = list(codes.REASONS.values())
    assert len({concept.value for concept in found}) == len({concept.meaning for concept in found}) == len(found)
    for reason, concept in codes.REASONS.items():
        assert concept.value.startswith("1" if reason.outcome is Outcome.NOT_ATTEMPTED else "2")
        assert codes.ascii_text(concept.meaning) == concept.meaning  # fits LO


@pytest.mark.parametrize("sources", [[FILM], SLICES], ids=["film", "series"])
def test_evidence_is_what_highdicom_finds_referenced(sources: Sequence[Dataset]) -> None:
    analysis = FINDING if len(sources) == 1 else IN_SERIES
    ours = reread(report(sources, analysis))
    theirs = highdicom.sr.Comprehensive3DSR(
        evidence=sources,
        content=highdicom_tree.measurement_report(sources, analysis),
        series_instance_uid=ours.SeriesInstanceUID,
        series_number=1,
        sop_instance_uid=ours.SOPInstanceUID,
        instance_number=1,
        manufacturer="radnode",
        is_complete=True,
    )
    keyword = "CurrentRequestedProcedureEvidenceSequence"
    assert ours[keyword].to_json_dict(None, 0) == theirs[keyword].to_json_dict(None, 0)
    assert "PertinentOtherEvidenceSequence" not in ours
    for flag in ("CompletionFlag", "VerificationFlag", "SOPClassUID", "StudyInstanceUID", "PatientID"):
        assert ours[flag].value == theirs[flag].value
