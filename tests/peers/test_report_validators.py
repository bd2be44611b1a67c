"""Reports and bundled samples as other people's validators see them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pydicom
import pytest
from support import films, validators
from support.analyses import ANALYSES, report
from support.report_checks import problems

from radnode.detect.analyser import Task
from radnode.model import Reason
from radnode.report.sr import encode_report

SOURCES = {"CR": films.NORMAL, "DX": films.OPACITY, "CT": films.CT[7], "MR": films.MR}
CHARACTER_SETS = {
    "none": films.NO_CHARACTER_SET,
    "latin": films.LATIN,
    "japanese": films.JAPANESE,
    "utf8": films.UTF_8,
}
CASES = list(itertools.product(SOURCES, ANALYSES, CHARACTER_SETS))
# PixelMed checks the content tree, which knows nothing of character sets, and takes a second for each report.
TREES = [case for case in CASES if case[2] == "latin" or case[:2] == ("DX", "finding")]

# docs/conformance.md explains each of them.
KNOWN_DCIODVFY = (
    "that would be needed to build DICOMDIR",
    "DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",
    "<----> - Retired Person Name form",
)
KNOWN_PIXELMED = (
    'Code (43468-8,LN,"XR unspecified body region") not found in context group 100',
    *(
        f"{item}: Content Item not in template"
        for item in (
            'TEXT (122405,DCM,"Algorithm Manufacturer")',
            'CODE (111017,DCM,"CAD Processing and Findings Summary")',
            'CODE (111064,DCM,"Summary of Detections")',
            'CODE (112001,DCM,"Opacity")',
            'TEXT (121106,DCM,"Comment")',
        )
    ),
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Path]:
    folder = tmp_path_factory.mktemp("reports")
    paths = {}
    for case in CASES:
        modality, outcome, character_set = case
        source = films.received(films.fresh(SOURCES[modality], **CHARACTER_SETS[character_set]))
        paths[case] = folder / ("-".join(case) + ".dcm")
        paths[case].write_bytes(encode_report(report(source, ANALYSES[outcome])))
    return paths


@pytest.fixture(scope="module")
def pixelmed_lines(reports: dict[tuple[str, str, str], Path]) -> dict[Path, list[str]]:
    if not validators.has_pixelmed():
        pytest.skip("libpixelmed-java with a JDK is not installed")
    return validators.pixelmed([reports[case] for case in TREES])


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_dciodvfy_finds_no_error_and_no_warning_but_the_documented(reports, case) -> None:
    status, lines = validators.dciodvfy(reports[case])
    assert status == 0
    assert not [line for line in lines if not line.endswith(KNOWN_DCIODVFY)]


@pytest.mark.parametrize("case", TREES, ids="-".join)
def test_pixelmed_finds_no_error_and_no_warning_but_the_documented(reports, pixelmed_lines, case) -> None:
    assert not [line for line in pixelmed_lines[reports[case]] if not line.endswith(KNOWN_PIXELMED)]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_dsrdump_reads_the_tree(reports, case) -> None:
    if not validators.has_dsrdump():
        pytest.skip("dcmtk is not installed")
    status, output = validators.dsrdump(reports[case])
    assert status == 0, output


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_own_checks_find_nothing(reports, case) -> None:
    assert problems(pydicom.dcmread(reports[case])) == []


@pytest.mark.parametrize("path", [films.OPACITY, films.NORMAL, films.CT[7]], ids=lambda path: path.stem)
def test_report_and_image_agree_on_patient_and_study(path: Path, tmp_path: Path) -> None:
    for outcome, analysis in ANALYSES.items():
        result = tmp_path / f"{outcome}.dcm"
        result.write_bytes(encode_report(report(films.received(pydicom.dcmread(path)), analysis)))
        assert validators.dcentvfy([path, result]) == []


@pytest.mark.parametrize("path", [films.OPACITY, films.NORMAL, *films.CT], ids=lambda path: path.stem)
def test_samples_are_valid_images(path: Path) -> None:
    status, lines = validators.dciodvfy(path)
    assert status == 0
    assert not [line for line in lines if line.startswith("Error")]


def test_report_of_a_detector_that_does_not_load_is_as_valid_as_others(tmp_path: Path) -> None:
    source = films.received(films.fresh(films.OPACITY, **films.LATIN))
    task = Task("cxr-opacity", source, b"", None)
    task.decline(Reason.MODEL_UNAVAILABLE)
    path = tmp_path / "unavailable.dcm"
    path.write_bytes(encode_report(report(source, task.analysis)))
    document = pydicom.dcmread(path)
    assert task.analysis.model.version == "not loaded"
    assert "not loaded" in document.ContributingEquipmentSequence[0].SoftwareVersions
    status, lines = validators.dciodvfy(path)
    assert status == 0
    assert not [line for line in lines if not line.endswith(KNOWN_DCIODVFY)]
    assert problems(document) == []
    if validators.has_pixelmed():
        assert not [line for line in validators.pixelmed([path])[path] if not line.endswith(KNOWN_PIXELMED)]


def test_pixelmed_catches_a_report_without_observer_type(reports, tmp_path: Path) -> None:
    if not validators.has_pixelmed():
        pytest.skip("libpixelmed-java with a JDK is not installed")
    broken = pydicom.dcmread(reports["DX", "finding", "latin"])
    del broken.ContentSequence[1]  # observer type
    path = tmp_path / "broken.dcm"
    broken.save_as(path)
    assert any(line.startswith("Error") for line in validators.pixelmed([path])[path])
