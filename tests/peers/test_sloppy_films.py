"""Films with values that no standard allows: each is answered, analysed or declined with a reason, and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import config
from support import films, validators
from support.node import wait_for
from support.report_checks import problems

pytestmark = pytest.mark.filterwarnings("ignore:Unknown encoding:UserWarning")  # pydicom's, here in the test

GOOD = ("no_finding", None)
PIXELS = ("failed", "pixels_undecodable")
# keyword, VR and bytes of one element of the normal film, and what becomes of it
SLOPPY: dict[str, tuple[str, str, bytes, tuple[str, str | None]]] = {
    "unknown character set": ("SpecificCharacterSet", "CS", b"ISO_IR 999", GOOD),
    "name of control characters": ("PatientName", "PN", b"\xff\xfe\x00\r\n^{0}%s<b>", GOOD),
    "name of 3000 characters": ("PatientName", "PN", b"A" * 3000, GOOD),
    "several patient ids": ("PatientID", "LO", b"a\\b\\c", GOOD),
    "date that is none": ("StudyDate", "DA", b"not a date at all", GOOD),
    "time zone that is none": ("TimezoneOffsetFromUTC", "SH", b"+9999", GOOD),
    "instance number that is none": ("InstanceNumber", "IS", b"x", GOOD),
    "spacing that is no number": ("ImagerPixelSpacing", "DS", b"nan\\nan", GOOD),
    "infinite slope": ("RescaleSlope", "DS", b"inf", PIXELS),
    "frames that are no number": ("NumberOfFrames", "IS", b"abc", ("not_attempted", "multi_frame")),
    "two views": ("ViewPosition", "CS", b"PA\\AP", ("not_attempted", "unsupported_view")),
    "two modalities": ("Modality", "CS", b"CR\\DX", ("not_attempted", "unsupported_modality")),
    "no photometric interpretation": (
        *("PhotometricInterpretation", "CS", b""),
        ("not_attempted", "unsupported_photometric_interpretation"),
    ),
}


@pytest.fixture(scope="module")
def reported(clinic, chest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """Result and report of each film, after all of them went to the node on one association."""
    folder = tmp_path_factory.mktemp("sloppy")
    uids = {}
    for label, (keyword, vr, value, _) in SLOPPY.items():
        dataset = films.fresh(films.NORMAL)
        uids[label] = str(dataset.SOPInstanceUID)
        with config.disable_value_validation():
            content = films.file_bytes(films.with_raw(dataset, keyword, vr, value))
        (folder / f"{len(uids):02}.dcm").write_bytes(content)
    before = clinic.pacs.report_count()
    sent = clinic.node.run("send", folder)
    assert sent.returncode == 0, sent.stderr

    def arrived() -> bool:
        return bool(clinic.pacs.report_count() == before + len(uids))

    wait_for(arrived, 30, "every report is in Orthanc")
    results = {row["source"]["SOPInstanceUID"]: row for row in clinic.node.results()}
    with config.disable_value_validation():
        paths = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in clinic.pacs.report_files()}
    return {label: (results[uid], paths[results[uid]["report"]["SOPInstanceUID"]]) for label, uid in uids.items()}


@pytest.mark.parametrize("label", SLOPPY)
def test_sloppy_film_is_reported_with_its_outcome(reported, label: str) -> None:
    result, path = reported[label]
    assert (result["outcome"], result["reason"]) == SLOPPY[label][3]
    with config.disable_value_validation():
        assert problems(pydicom.dcmread(path)) == []
    status, _lines = validators.dsrdump(path)
    assert status == 0


def test_log_is_one_json_object_a_line_and_tells_of_no_error(clinic, reported) -> None:
    assert [line for line in clinic.node.log() if line["level"] in ("error", "critical")] == []
