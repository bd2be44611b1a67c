"""Every outcome on patients with names in every script: what reaches Orthanc says why, and whose it is."""

from __future__ import annotations

from typing import Any

import highdicom
import pydicom
import pytest
from support import validators
from support.report_checks import children, name, problems, walk

OUTCOMES = {
    "normal": ("no_finding", None),
    "ct": ("not_attempted", "unsupported_sop_class"),
    "mr": ("not_attempted", "unsupported_sop_class"),
    "undecodable": ("failed", "pixels_undecodable"),
}
NAMES = {"latin": "Müller^Jörg", "japanese": "Yamada^Tarou=山田^太郎", "utf8": "山田^太郎"}
# CAD Processing and Findings Summary 111017, Summary of Detections 111064 (docs: report)
SUMMARY = {"no_finding": ("111241", "111222"), "failed": ("111245", "111224"), "not_attempted": ("111245", "111225")}
REASONS = {
    "unsupported_sop_class": "The detector does not accept this SOP class.",
    "pixels_undecodable": "The pixel data could not be decoded.",
}


@pytest.fixture(scope="module")
def results(clinic, sent) -> dict[str, dict[str, Any]]:
    """What the node says of each image, by its UID."""
    return {row["source"]["SOPInstanceUID"]: row for row in clinic.node.results()}


@pytest.mark.parametrize("patient", NAMES)
@pytest.mark.parametrize("case", OUTCOMES)
def test_outcome_and_reason_reach_pacs_on_every_patient(clinic, sent, results, case: str, patient: str) -> None:
    outcome, reason = OUTCOMES[case]
    uid = pydicom.dcmread(sent[case, patient]).SOPInstanceUID
    path = clinic.report_on(uid)
    assert path is not None
    report = highdicom.sr.srread(path)
    [group] = [item for item in walk(report) if name(item) == "125007"]
    [summary], [detections] = children(group, "111017"), children(group, "111064")
    assert (
        summary.ConceptCodeSequence[0].CodeValue,
        detections.ConceptCodeSequence[0].CodeValue,
    ) == SUMMARY[outcome]
    assert [item.TextValue for item in children(group, "121106")] == ([REASONS[reason]] if reason else [])
    result = results[uid]
    assert (result["outcome"], result["reason"]) == (outcome, reason)
    assert (result["score"] is None) == (outcome != "no_finding")
    assert problems(report) == []
    status, lines = validators.dciodvfy(path)
    assert (status, [line for line in lines if line.startswith("Error")]) == (0, [])


@pytest.mark.parametrize("patient", NAMES)
@pytest.mark.parametrize("case", OUTCOMES)
def test_patient_name_reaches_pacs_byte_for_byte(clinic, sent, case: str, patient: str) -> None:
    source = pydicom.dcmread(sent[case, patient])
    path = clinic.report_on(source.SOPInstanceUID)
    assert path is not None
    report = pydicom.dcmread(path)
    assert _bytes(report, "PatientName") == _bytes(source, "PatientName")
    assert report.SpecificCharacterSet == source.SpecificCharacterSet
    assert str(report.PatientName) == NAMES[patient]


def _bytes(dataset: pydicom.Dataset, keyword: str) -> bytes:
    value = dataset.get_item(keyword).value
    assert isinstance(value, bytes)
    return value.rstrip(b" ")
