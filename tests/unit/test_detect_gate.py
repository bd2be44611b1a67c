"""The quality gate: one row an image that must or must not pass."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from radnode.detect.gate import check
from radnode.detect.manifest import Accepts
from radnode.errors import DetectionError
from radnode.model import Outcome, Reason

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
MR = "1.2.840.10008.5.1.4.1.1.4"

ACCEPTS = Accepts(
    level="instance",
    sop_classes=(CR, DX, SC),
    modalities=("CR", "DX"),
    body_parts=("CHEST",),
    views=("AP", "PA"),
    missing_body_part="accept",
    missing_view="accept",
    photometric_interpretations=("MONOCHROME1", "MONOCHROME2"),
    min_rows=256,
    min_columns=200,
)


def image(**changes: Any) -> Dataset:
    dataset = Dataset()
    elements: dict[str, Any] = {
        "SOPClassUID": CR,
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 512,
        "Columns": 512,
    } | changes
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def view_code(value: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value, "SCT"
    return code


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"SOPClassUID": DX, "Modality": "DX"},
        {"SOPClassUID": SC},
        {"BodyPartExamined": None},
        {"BodyPartExamined": ""},
        {"BodyPartExamined": "CHEST "},
        {"ViewPosition": None},
        {"ViewPosition": "AP"},
        {"ViewPosition": None, "ViewCodeSequence": [view_code("399348003")]},
        {"ViewPosition": None, "ViewCodeSequence": [view_code("R-10214")]},
        {"ViewPosition": None, "ViewCodeSequence": []},
        {"NumberOfFrames": 1},
        {"Rows": 256, "Columns": 200},
    ],
)
def test_image_that_the_detector_accepts_passes(changes: dict[str, Any]) -> None:
    check(image(**changes), ACCEPTS)


ADULTS = ACCEPTS.model_copy(update={"min_age_years": 18})


@pytest.mark.filterwarnings("ignore:.*Invalid value for VR")
@pytest.mark.parametrize(
    "changes",
    [
        {"PatientAge": "018Y"},
        {"PatientAge": "216M"},
        {"PatientAge": "936W"},
        {"PatientAge": "018Y", "PatientBirthDate": "20200101", "StudyDate": "20250101"},
        {"PatientBirthDate": "20060304", "StudyDate": "20240304"},
        {"PatientBirthDate": "20060304"},
        {"PatientBirthDate": "20300304", "StudyDate": "20240304"},
        {"PatientBirthDate": "20060000", "StudyDate": "20240304"},
        {"PatientAge": ""},
        {"PatientAge": "young"},
        {},
    ],
)
def test_adult_or_patient_of_unknown_age_passes_a_detector_for_adults(changes: dict[str, Any]) -> None:
    check(image(**changes), ADULTS)


@pytest.mark.filterwarnings("ignore:.*Invalid value for VR")
@pytest.mark.parametrize(
    "changes",
    [
        {"PatientAge": "005Y"},
        {"PatientAge": "5Y"},
        {"PatientAge": "017Y"},
        {"PatientAge": "011M"},
        {"PatientAge": "215M"},
        {"PatientAge": "003W"},
        {"PatientAge": "010D"},
        {"PatientBirthDate": "20060305", "StudyDate": "20240304"},
        {"PatientAge": "?", "PatientBirthDate": "20230305", "StudyDate": "20240304"},
    ],
)
def test_child_is_not_shown_to_a_detector_for_adults_and_passes_where_any_age_is_accepted(
    changes: dict[str, Any],
) -> None:
    check(image(**changes), ACCEPTS)
    with pytest.raises(DetectionError) as caught:
        check(image(**changes), ADULTS)
    assert caught.value.reason is Reason.UNSUPPORTED_AGE
    assert caught.value.reason.outcome is Outcome.NOT_ATTEMPTED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPClassUID": MR, "Modality": "MR"}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"SOPClassUID": None}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"SOPClassUID": SC, "Modality": "OT"}, Reason.UNSUPPORTED_MODALITY),
        ({"Modality": "MR"}, Reason.UNSUPPORTED_MODALITY),
        ({"Modality": None}, Reason.UNSUPPORTED_MODALITY),
        ({"BodyPartExamined": "HAND"}, Reason.UNSUPPORTED_BODY_PART),
        ({"ViewPosition": "LL"}, Reason.UNSUPPORTED_VIEW),
        ({"ViewPosition": "LATERAL"}, Reason.UNSUPPORTED_VIEW),
        ({"ViewPosition": None, "ViewCodeSequence": [view_code("399067008")]}, Reason.UNSUPPORTED_VIEW),
        ({"ViewPosition": None, "ViewCodeSequence": [Dataset()]}, Reason.UNSUPPORTED_VIEW),
        ({"PhotometricInterpretation": "RGB"}, Reason.UNSUPPORTED_PHOTOMETRIC),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED_PHOTOMETRIC),
        ({"PhotometricInterpretation": None}, Reason.UNSUPPORTED_PHOTOMETRIC),
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"NumberOfFrames": 0}, Reason.MULTI_FRAME),
        ({"Rows": 255}, Reason.TOO_SMALL),
        ({"Columns": 199}, Reason.TOO_SMALL),
    ],
)
def test_image_that_the_detector_does_not_accept_is_not_attempted(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(DetectionError) as caught:
        check(image(**changes), ACCEPTS)
    assert caught.value.reason is reason
    assert caught.value.reason.outcome is Outcome.NOT_ATTEMPTED


@pytest.mark.parametrize("changes", [{"Rows": None}, {"Columns": 0}])
def test_image_without_size_failed(changes: dict[str, Any]) -> None:
    with pytest.raises(DetectionError) as caught:
        check(image(**changes), ACCEPTS)
    assert caught.value.reason is Reason.PIXELS_UNDECODABLE


def test_missing_attributes_are_declined_when_the_manifest_says_so() -> None:
    strict = ACCEPTS.model_copy(update={"missing_view": "decline"})
    with pytest.raises(DetectionError) as caught:
        check(image(ViewPosition=None), strict)
    assert caught.value.reason is Reason.UNSUPPORTED_VIEW
