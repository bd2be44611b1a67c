"""Reports and bundled samples as other people's validators see them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from support import films, validators
from support.analyses import FINDING, report
from support.ct import CTSeries
from support.enhanced import enhanced_ct
from support.report_checks import measurement_groups, problems
from support.report_checks import name as name_of
from support.report_corpus import CHARACTER_SETS, IMAGES, ON_SLICES, corpus
from support.secondary import secondary

from radnode.detect.analyser import Task
from radnode.model import Reason
from radnode.report.sr import encode_report

CASES = corpus()
ALL = pytest.mark.parametrize("name", list(CASES))

# docs/conformance.md explains each of them.
KNOWN_DCIODVFY = (
    "that would be needed to build DICOMDIR",
    "DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",
    "<----> - Retired Person Name form",
    "CodingSchemeDesignator(0008,0102)[1]> - Unrecognized defined term = <99RADNODE>",
)
KNOWN_PIXELMED = tuple(
    f"{item}: Content Item not in template"
    for item in (
        'TEXT (122405,DCM,"Algorithm Manufacturer")',
        'CODE (111017,DCM,"CAD Processing and Findings Summary")',
        'CODE (111064,DCM,"Summary of Detections")',
        'CODE (112001,DCM,"Opacity")',
        'CODE (100,99RADNODE,"Reason for No Result")',
        'TEXT (121106,DCM,"Comment")',
    )
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Path], Path]]:
    """What each report refers to, and the report."""
    folder = tmp_path_factory.mktemp("reports")
    return {name: case.write(folder, name) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def dciodvfy(files: Mapping[str, tuple[list[Path], Path]]) -> dict[str, tuple[int, list[str]]]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(files, pool.map(validators.dciodvfy, [path for _, path in files.values()]), strict=True))


@pytest.fixture(scope="module")
def broken(files: Mapping[str, tuple[list[Path], Path]]) -> Path:
    """A report whose only finding is in a group without region."""
    images, path = files["odd-one-region"]
    dataset = pydicom.dcmread(path)
    group = measurement_groups(dataset)[1]
    group.ContentSequence = [item for item in group.ContentSequence if name_of(item) != "111030"]
    dataset.save_as(images[0].with_name("broken.dcm"))
    return images[0].with_name("broken.dcm")


@pytest.fixture(scope="module")
def selections(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Key object selections of a film, of a series and of a multi-frame image."""
    folder, paths = tmp_path_factory.mktemp("selections"), []
    for images, analysis in (
        (films.fresh(films.OPACITY, **films.JAPANESE), FINDING),
        (CTSeries().slices(1, 4), ON_SLICES),
        (enhanced_ct(4), ON_SLICES),
    ):
        paths.append(folder / f"{len(paths)}.dcm")
        paths[-1].write_bytes(encode_report(secondary(images, analysis)["kos1"]))
    return paths


@pytest.fixture(scope="module")
def pixelmed(
    files: Mapping[str, tuple[list[Path], Path]], broken: Path, selections: list[Path]
) -> dict[Path, list[str]]:
    if not validators.has_pixelmed():
        pytest.skip("libpixelmed-java with a JDK is not installed")
    return validators.pixelmed([path for _, path in files.values()] + [broken, *selections])


def test_corpus_is_of_every_kind() -> None:
    assert len(CASES) >= 40
    for kind in IMAGES:
        assert sum(name.startswith(f"{kind}-") for name in CASES) >= 4
    assert set(CHARACTER_SETS) >= {"none", "latin", "japanese", "korean", "chinese", "utf8"}


@ALL
def test_dciodvfy_finds_no_error_and_no_warning_but_the_documented(dciodvfy, name: str) -> None:
    status, lines = dciodvfy[name]
    assert status == 0
    assert not [line for line in lines if not line.endswith(KNOWN_DCIODVFY)]


@ALL
def test_pixelmed_finds_no_error_and_no_warning_but_the_documented(files, pixelmed, name: str) -> None:
    assert not [
        line for line in pixelmed[files[name][1]] if not (line.startswith("Warning") and line.endswith(KNOWN_PIXELMED))
    ]


@ALL
def test_dsrdump_reads_the_tree(files, name: str) -> None:
    if not validators.has_dsrdump():
        pytest.skip("dcmtk is not installed")
    status, output = validators.dsrdump(files[name][1])
    assert status == 0, output


@ALL
def test_dcentvfy_finds_report_and_images_of_one_patient_and_study(files, name: str) -> None:
    before, path = files[name]
    assert validators.dcentvfy([*before, path]) == []


@ALL
def test_own_checks_find_nothing(files, name: str) -> None:
    assert problems(pydicom.dcmread(files[name][1]), CASES[name].sources) == []


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


def test_pixelmed_finds_nothing_in_key_object_selections(selections: list[Path], pixelmed) -> None:
    assert {path: pixelmed[path] for path in selections} == {path: [] for path in selections}


def test_pixelmed_catches_a_planar_group_without_region(broken: Path, pixelmed) -> None:
    lines = [line for line in pixelmed[broken] if line.startswith("Error")]
    assert any("Image Region" in line and line.endswith("Missing conditional content item") for line in lines)
