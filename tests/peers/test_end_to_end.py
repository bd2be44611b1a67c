"""One image, end to end: dcmtk sends it over mutual TLS, Orthanc receives the report."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from support import films, validators
from support.node import wait_for
from support.report_checks import name, problems, walk

from radnode.part10 import read_file_meta

RESULT_KEYS = {"id", "created", "outcome", "reason", "score", "peak", "findings", "model", "source", "report"} | {
    "delivered",
    "secondary",
}
FINDING_KEYS = {"code", "scheme", "meaning", "score", "site", "laterality", "region", "diameter_mm", "volume_mm3"}


def test_chest_film_becomes_structured_report_in_pacs_within_15_seconds(chest: Path) -> None:
    assert problems(pydicom.dcmread(chest)) == []


def test_report_in_pacs_has_no_error_in_dciodvfy(chest: Path) -> None:
    status, lines = validators.dciodvfy(chest)
    assert status == 0
    assert [line for line in lines if line.startswith("Error")] == []


def test_highdicom_reads_back_region_tracking_finding_certainty_and_algorithm(clinic, chest: Path) -> None:
    report = highdicom.sr.srread(chest)
    groups = report.content.get_planar_roi_measurement_groups()
    result = clinic.result_on(pydicom.dcmread(films.OPACITY).SOPInstanceUID)
    assert len(groups) == len(result["findings"]) >= 1
    for group, finding in zip(groups, result["findings"], strict=True):
        outline = [*finding["region"]["points"], finding["region"]["points"][0]]
        np.testing.assert_allclose(group.roi.value, outline, atol=1e-3)
        assert group.roi.graphic_type == highdicom.sr.GraphicTypeValues.POLYLINE
        assert pydicom.uid.UID(group.tracking_uid).is_valid
        assert (group.finding_type.value, group.finding_type.scheme_designator) == ("112001", "DCM")
        [certainty] = [item for item in group.get_measurements() if item.name.value == "111012"]
        assert certainty.value == pytest.approx(100 * finding["score"], abs=1e-3)
        assert certainty.unit.value == "%"
        algorithm = {name(item): item.TextValue for item in walk(group[0]) if item.ValueType == "TEXT"}
        assert (algorithm["111001"], algorithm["111003"]) == (result["model"]["name"], result["model"]["version"])


def test_results_show_agrees_with_report_in_pacs(clinic, chest: Path) -> None:
    source = pydicom.dcmread(films.OPACITY)
    listed = clinic.result_on(source.SOPInstanceUID)
    shown = clinic.node.run("results", "show", listed["id"], "--json")
    result = json.loads(shown.stdout)
    report = pydicom.dcmread(chest)
    assert result == listed
    assert set(result) == RESULT_KEYS
    assert all(set(finding) == FINDING_KEYS for finding in result["findings"])
    assert all(set(finding["region"]) == {"kind", "points", "frame"} for finding in result["findings"])
    assert set(result["model"]) == {"name", "version", "device_uid"}
    assert (result["outcome"], result["reason"]) == ("finding", None)
    assert 0 <= result["score"] <= 1
    assert 0 <= result["peak"][0] <= source.Columns
    assert 0 <= result["peak"][1] <= source.Rows
    assert result["source"] == {
        key: source[key].value for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    assert result["report"] == {"SOPInstanceUID": report.SOPInstanceUID}
    [observer] = [item.UID for item in walk(report) if name(item) == "121012"]
    assert result["model"]["device_uid"] == observer
    assert result["delivered"] == [{"destination": "pacs", "state": "delivered", "tries": 1}]


def test_peak_of_the_finding_lies_in_the_radiologists_box(clinic, chest: Path) -> None:
    result = clinic.result_on(pydicom.dcmread(films.OPACITY).SOPInstanceUID)
    [[left, top, width, height]] = json.loads(films.OPACITY.with_suffix(".json").read_text())["boxes"]
    column, row = result["peak"]
    assert left <= column <= left + width
    assert top <= row <= top + height


def test_results_export_writes_the_data_set_that_pacs_received(clinic, chest: Path, tmp_path: Path) -> None:
    result = clinic.result_on(pydicom.dcmread(films.OPACITY).SOPInstanceUID)
    output = tmp_path / "report.dcm"
    assert clinic.node.run("results", "export", result["id"], "-o", output).returncode == 0
    exported, kept = output.read_bytes(), chest.read_bytes()
    assert exported[read_file_meta(exported).offset :] == kept[read_file_meta(kept).offset :]
    assert output.stat().st_mode & 0o777 == 0o600


def test_same_film_again_is_success_and_no_second_report(clinic, sent) -> None:
    before, jobs = len(clinic.pacs.report_files()), len(clinic.node.rows("jobs", "list", "--all"))
    again = clinic.node.storescu([films.OPACITY])
    assert again.returncode == 0, again.stderr
    assert "(Success)" in again.stdout + again.stderr
    assert len(clinic.node.rows("jobs", "list", "--all")) == jobs
    assert len(clinic.pacs.report_files()) == before
    wait_for(lambda: _received(clinic)[-1]["action"] == "R", 5, "the trail says that it was received again")


def test_same_uid_with_other_bytes_is_answered_0111_and_audited_as_update(clinic, chest: Path) -> None:
    altered = pydicom.dcmread(films.OPACITY)
    altered.PixelData = bytes(len(altered.PixelData))
    path = clinic.write("altered", altered)
    before = clinic.result_on(altered.SOPInstanceUID)
    sent = clinic.node.storescu([path])
    assert sent.returncode != 0
    assert "Status: 0x111)" in sent.stdout + sent.stderr
    entry = wait_for(
        lambda: next((entry for entry in _received(clinic) if entry["action"] == "U"), None), 5, "the trail says so"
    )
    assert (entry["outcome"], entry["detail"]["status"]) == ("minor", "0111")
    assert clinic.result_on(altered.SOPInstanceUID) == before


def test_report_of_a_warm_node_is_in_pacs_within_5_seconds(
    clinic, sent, record_property: pytest.RecordProperty
) -> None:
    seconds = []
    for number in range(10):
        path = clinic.write(f"warm-{number}", films.fresh(films.OPACITY))
        before = clinic.pacs.report_count()
        assert clinic.node.storescu([path]).returncode == 0
        began = time.monotonic()
        while clinic.pacs.report_count() == before:
            assert time.monotonic() - began < 15
            time.sleep(0.01)
        seconds.append(time.monotonic() - began)
    record_property("storescu_end_to_report_in_pacs_seconds", sorted(seconds))
    print("storescu end to report in Orthanc:", [f"{value:.2f} s" for value in sorted(seconds)])
    assert statistics.median(seconds) < 5


def test_check_says_that_node_and_pacs_are_fit(clinic) -> None:
    checked = clinic.node.run("check")
    assert checked.returncode == 0, checked.stdout
    assert "answers C-ECHO" in checked.stdout


def test_trail_of_all_this_verifies(clinic, sent) -> None:
    verified = clinic.node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    assert "audit verify: ok" in verified.stdout


def _received(clinic) -> list[dict[str, Any]]:
    return clinic.node.trail("image_received")


def test_the_same_film_sent_again_leaves_the_pacs_with_as_many_objects(clinic, chest: Path) -> None:
    film = pydicom.dcmread(films.OPACITY, stop_before_pixels=True)
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": film.StudyInstanceUID}}
    counts = []
    for label in ("before", "after"):
        another = films.fresh(films.NORMAL)
        paths = [clinic.write(f"sent-{label}", another)]
        if label == "after":
            paths.insert(0, films.OPACITY)
        for path in paths:  # what is reported after it tells that the node has nothing left to do for the first
            assert clinic.node.storescu([path]).returncode == 0
        wait_for(lambda uid=another.SOPInstanceUID: clinic.report_on(uid), 15, "the other film is reported")
        counts.append(len(clinic.pacs.post("/tools/find", query)))
    assert counts[0] == counts[1] >= 1
    assert len([row for row in clinic.node.results() if row["source"]["SOPInstanceUID"] == film.SOPInstanceUID]) == 1
