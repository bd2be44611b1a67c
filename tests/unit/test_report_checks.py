"""Reports broken on purpose: the suite's own checks catch what the validators let pass."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pydicom
import pytest
from pydicom.dataset import Dataset
from support import films
from support.analyses import FAILED, FINDING, NO_FINDING, NOT_ATTEMPTED, report
from support.report_checks import children, measurement_groups, name, problems

from radnode.model import Finding
from radnode.report.sr import encode_report

SOURCE = films.received(pydicom.dcmread(films.OPACITY))
Break = Callable[[Dataset], None]


def good(analysis=FINDING) -> Dataset:
    return pydicom.dcmread(io.BytesIO(encode_report(report(SOURCE, analysis))))


def without(group: int, code: str) -> Break:
    def remove(dataset: Dataset) -> None:
        chosen = measurement_groups(dataset)[group]
        chosen.ContentSequence = [item for item in chosen.ContentSequence if name(item) != code]

    return remove


def title(dataset: Dataset) -> None:
    dataset.ConceptNameCodeSequence[0].CodeValue = "126001"


def region_on_no_image(dataset: Dataset) -> None:
    del children(measurement_groups(dataset)[1], "111030")[0].ContentSequence


def no_groups(dataset: Dataset) -> None:
    dataset.ContentSequence = [item for item in dataset.ContentSequence if name(item) != "126010"]


def no_evidence(dataset: Dataset) -> None:
    del dataset.CurrentRequestedProcedureEvidenceSequence


def twins(dataset: Dataset) -> None:
    first, second = (children(group, "112040")[0] for group in measurement_groups(dataset)[1:3])
    second.UID = first.UID


def negative(dataset: Dataset) -> None:
    """The failure that a reader would take for "nothing there"."""
    measurement_groups(dataset)[0].ContentSequence.extend(
        item for item in measurement_groups(good(NO_FINDING))[0].ContentSequence if item.ValueType == "CODE"
    )


def wrong_summary(dataset: Dataset) -> None:
    children(measurement_groups(dataset)[0], "111017")[0].ConceptCodeSequence[0].CodeValue = "111241"


def observer(dataset: Dataset) -> None:
    children(dataset, "121012")[0].UID = "2.25.99"


def telltale(dataset: Dataset) -> None:
    measurement_groups(dataset)[0].ContentSequence[-1:] = [
        item for item in measurement_groups(good())[1].ContentSequence if name(item) == "121106"
    ]
    children(measurement_groups(dataset)[0], "121106")[0].TextValue = "Sample^Opacity has nothing"


def out_of_image(dataset: Dataset) -> None:
    region = children(measurement_groups(dataset)[1], "111030")[0]
    region.GraphicData = [100000.0, *region.GraphicData[1:]]


def millimetres(dataset: Dataset) -> None:
    size = children(measurement_groups(dataset)[1], "81827009")[0]
    size.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "mm"


def sets(keyword: str, value: object) -> Break:
    return lambda dataset: setattr(dataset, keyword, value)


def deletes(keyword: str) -> Break:
    return lambda dataset: delattr(dataset, keyword)


BROKEN = {
    "another title": (FINDING, title, "The title is not 126000 Imaging Measurement Report."),
    "no region": (FINDING, without(1, "111030"), "Planar group 2 has no region on an image."),
    "region on no image": (FINDING, region_on_no_image, "Planar group 2 has no region on an image."),
    "no tracking UID": (FINDING, without(3, "112040"), "Group 4 has no tracking UID."),
    "one tracking UID twice": (FINDING, twins, "Two groups have one tracking UID."),
    "no group": (FINDING, no_groups, "There is no measurement group."),
    "no evidence": (FINDING, no_evidence, "An image is referenced that the evidence does not name."),
    "no certainty": (FINDING, without(2, "111012"), "Group 3 has no finding with its certainty."),
    "no finding": (FINDING, without(1, "121071"), "Group 2 has no finding with its certainty."),
    "no version": (FINDING, without(1, "111003"), "Group 2 does not say which algorithm and version."),
    "verified": (FINDING, sets("VerificationFlag", "VERIFIED"), "VerificationFlag is not UNVERIFIED."),
    "final": (FINDING, sets("PreliminaryFlag", "FINAL"), "PreliminaryFlag is not PRELIMINARY."),
    "partial": (FINDING, sets("CompletionFlag", "PARTIAL"), "CompletionFlag is not COMPLETE."),
    "unqualified": (FINDING, deletes("ContentQualification"), "There is no Content Qualification."),
    "silent series": (FINDING, deletes("SeriesDescription"), "The series does not say that it is of an AI."),
    "no algorithm": (
        FINDING,
        deletes("ContributingEquipmentSequence"),
        "No contributing equipment is a processing algorithm.",
    ),
    "another observer": (FINDING, observer, "The observer is not the device that contributed the result."),
    "a failure that is a negative": (
        FAILED,
        negative,
        "An analysis without result says that something is there, or is not.",
    ),
    "no reason": (NOT_ATTEMPTED, without(0, "100"), "An analysis without result gives no reason."),
    "no status": (NO_FINDING, without(0, "111064"), "There is no status."),
    "no score": (NO_FINDING, without(0, "111012"), "There is no score of the whole image."),
    "no presence": (
        NO_FINDING,
        without(0, "112001"),
        "It is not said whether the target is present or absent.",
    ),
    "wrong summary": (FINDING, wrong_summary, "The summary is not that of the findings."),
    "a name in a comment": (FINDING, telltale, "A comment is not one of ours."),
    "out of the image": (FINDING, out_of_image, "A region reaches out of its image."),
    "mm of a projection": (FINDING, millimetres, "A length is in mm, and no spacing holds in the patient."),
    "another patient": (FINDING, sets("PatientID", "4711"), "PatientID is not that of the images."),
    "another study": (FINDING, sets("StudyInstanceUID", "2.25.1"), "The report is of another study."),
    "series of the images": (
        FINDING,
        sets("SeriesInstanceUID", SOURCE.SeriesInstanceUID),
        "The report is in the series of its images.",
    ),
}


@pytest.mark.parametrize("analysis", [FINDING, NO_FINDING, FAILED, NOT_ATTEMPTED])
def test_a_good_report_has_no_problem(analysis) -> None:
    assert problems(good(analysis), [SOURCE]) == []


@pytest.mark.parametrize(("analysis", "breaks", "sentence"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_report_is_caught(analysis, breaks: Break, sentence: str) -> None:
    dataset = good(analysis)
    breaks(dataset)
    assert sentence in problems(dataset, [SOURCE])


def test_an_image_that_the_evidence_lacks_is_a_problem() -> None:
    other = films.received(films.fresh(films.OPACITY, StudyInstanceUID=SOURCE.StudyInstanceUID))
    assert "The evidence lacks an image that was analysed." in problems(good(), [SOURCE, other])


def test_a_frame_that_is_not_there_is_a_problem() -> None:
    region = replace(FINDING.findings[0].region, frame=2)
    dataset = good(replace(FINDING, findings=(Finding(FINDING.target, 0.9, region=region),)))
    assert problems(dataset, [SOURCE]) == ["A region is on a frame that is not there."]
