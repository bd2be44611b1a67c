"""The detector of whole series: what its numbers become, and that bad ones are failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import toys
from torch import Tensor, nn

from radnode.detect.detector import Detector
from radnode.detect.manifest import parse_manifest
from radnode.detect.package import Package, load_package, sign_package, stated_level
from radnode.detect.pixels import Geometry
from radnode.detect.series_detector import SeriesDetector
from radnode.detect.volume import Volume
from radnode.errors import DetectionError, PackageError
from radnode.model import Analysis, Outcome, Reason

STEPS = (2.5, 1.4, 1.4)


class FewSlices(nn.Module):
    """Gives the heat of the first slice alone."""

    def forward(self, volume: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        heat = nn.functional.avg_pool2d(volume, 8)[:, :1]
        return heat.flatten(1).amax(dim=1) + steps[:, 0] * 0.0, heat


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("toy") / "toy-bright" / "0.0.1"
    toys.series_package(folder, "toy-bright", toys.series_program(toys.Bright()))
    return load_package(folder, {"tests": toys.KEY.public_key()})


@pytest.fixture(scope="module")
def detector(package: Package) -> SeriesDetector:
    return SeriesDetector(package, device="cpu")


def volume(slices: int, *boxes: tuple[int, int, int], steps: tuple[float, float, float] = STEPS) -> Volume:
    """A dark volume with bright blocks of 8 x 8 at (slice, row, column), of sources of 128 x 128 with 0.7 mm."""
    pixels = np.zeros((slices, 64, 64), dtype=np.float32)
    for number, row, column in boxes:
        pixels[number, row : row + 8, column : column + 8] = 1.0
    return Volume(pixels, steps, Geometry.fit(128, 128, 64), (0.7, 0.7))


def test_lesion_over_slices_is_one_finding_on_its_slice_in_source_pixels(detector: SeriesDetector) -> None:
    seen = volume(7, (2, 16, 24), (3, 16, 24), (3, 16, 32), (4, 16, 24))
    answer = detector.detect(seen)
    assert isinstance(answer, Analysis)
    assert answer.outcome is Outcome.FINDING
    assert answer.peak is None
    [finding] = answer.findings
    assert finding.region is not None
    assert finding.region.frame == 4
    assert finding.region.points == ((48.0, 32.0), (80.0, 32.0), (80.0, 48.0), (48.0, 48.0))
    assert finding.diameter_mm == pytest.approx(32 * 0.7)


def test_lesion_of_the_kind_contour_has_outlines_diameter_and_volume(tmp_path: Path) -> None:
    folder = toys.series_package(tmp_path / "toy-bright" / "0.0.1", "toy-bright", toys.series_program(toys.Bright()))
    text = (folder / "model.toml").read_text().replace('kind = "box"', 'kind = "contour"')
    (folder / "model.toml").write_text(text)
    sign_package(folder, toys.KEY, "tests")
    detector = SeriesDetector(load_package(folder, {"tests": toys.KEY.public_key()}), device="cpu")
    answer = detector.detect(volume(7, (2, 16, 24), (3, 16, 24), (3, 16, 32), (4, 16, 24)))
    assert isinstance(answer, Analysis)
    [finding] = answer.findings
    assert finding.region is not None
    assert (finding.region.kind, finding.region.frame) == ("contour", 4)
    columns, rows = zip(*finding.region.points, strict=True)
    assert (min(columns), max(columns)) == pytest.approx((48, 80), abs=0.1)  # cells are 16 pixels, and all or nothing
    assert (min(rows), max(rows)) == pytest.approx((32, 48), abs=0.1)
    assert finding.diameter_mm == pytest.approx(32 * 0.7, abs=0.2)
    assert finding.volume_mm3 == pytest.approx(4 * 2.5 * (8 * 1.4) ** 2)
    assert [outline.frame for outline in finding.outlines] == [3, 4, 5]
    assert finding.outlines[1] == finding.region


def test_lesions_apart_are_findings_apart(detector: SeriesDetector) -> None:
    answer = detector.detect(volume(9, (1, 0, 0), (6, 0, 0), (6, 48, 48)))
    assert isinstance(answer, Analysis)
    assert [finding.region and finding.region.frame for finding in answer.findings] == [2, 7, 7]


def test_nothing_bright_is_no_finding(detector: SeriesDetector) -> None:
    answer = detector.detect(volume(3))
    assert isinstance(answer, Analysis)
    assert (answer.outcome, answer.findings) == (Outcome.NO_FINDING, ())
    assert answer.score is not None
    assert answer.score < 0.01


@pytest.mark.parametrize("slices", [3, 40, 301])
def test_any_number_of_slices_is_taken(detector: SeriesDetector, slices: int) -> None:
    answer = detector.detect(volume(slices, (slices - 1, 8, 8)))
    assert isinstance(answer, Analysis)
    assert [finding.region and finding.region.frame for finding in answer.findings] == [slices]


def test_numbers_that_are_none_are_a_failure_and_never_a_negative(detector: SeriesDetector) -> None:
    answer = detector.detect(volume(3, steps=(-1.0, 1.0, 1.0)))  # the toy's logarithm
    assert isinstance(answer, DetectionError)
    assert answer.reason is Reason.MODEL_OUTPUT_INVALID


def test_model_that_raises_is_a_failure(tmp_path: Path) -> None:
    folder = toys.install_series(tmp_path, "toy-raises", toys.RaisesOnBright())
    detector = SeriesDetector(load_package(folder, {"tests": toys.KEY.public_key()}), device="cpu")
    answer = detector.detect(volume(3, (1, 8, 8)))
    assert isinstance(answer, DetectionError)
    assert answer.reason is Reason.MODEL_RAISED
    assert isinstance(detector.detect(volume(3)), Analysis)


@pytest.mark.parametrize("module", [FewSlices(), toys.Hangs()], ids=["few slices", "program of images"])
def test_program_of_another_shape_does_not_load(tmp_path: Path, module: nn.Module) -> None:
    weights = toys.program(module) if isinstance(module, toys.Hangs) else toys.series_program(module)
    folder = toys.series_package(tmp_path / "odd" / "0.0.1", "odd", weights)
    with pytest.raises(PackageError, match="heat"):
        SeriesDetector(load_package(folder, {"tests": toys.KEY.public_key()}), device="cpu")


def test_packages_of_one_level_are_not_loaded_as_the_other(package: Package, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="whole series"):
        Detector(package)
    images = toys.package(tmp_path / "toy" / "0.0.1", "toy", b"none", percentiles=[0.0, 100.0], threshold=0.5)
    with pytest.raises(PackageError, match="looks at images"):
        SeriesDetector(load_package(images, {"tests": toys.KEY.public_key()}))


def test_level_is_known_of_a_package_that_does_not_load(package: Package, tmp_path: Path) -> None:
    folder = tmp_path / "toy-bright"
    folder.mkdir()
    (folder / "model.toml").write_bytes((package.path / "model.toml").read_bytes())
    assert stated_level(folder) == "series"
    (folder / "model.toml").write_text("no manifest")
    assert stated_level(folder) == "instance"
    assert stated_level(tmp_path / "nowhere") == "instance"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('level = "series"', 'level = "instance"', "the level instance has the table input"),
        ("[volume]", "[input]\npercentiles = [1.0, 99.0]\nmean = [0, 0, 0]\nstd = [1, 1, 1]", "input"),
        ("window = [-1000.0, 3000.0]", "window = [1.0, 1.0]", "two rising numbers"),
        ("min_slices = 3", "min_slices = 1", "volume.min_slices"),
        ("max_slices = 400", "max_slices = 2", "max_slices is at least min_slices"),
        ("max_slices = 400", "max_slices = 5000", "volume.max_slices"),
    ],
)
def test_manifest_that_contradicts_itself_is_not_usable(package: Package, old: str, new: str, said: str) -> None:
    text = (package.path / "model.toml").read_text()
    assert old in text
    with pytest.raises(PackageError, match=said):
        parse_manifest(text.replace(old, new).encode())


def test_toy_is_a_real_program_of_torch(package: Package) -> None:
    program = torch.export.load(package.path / "weights.pt2").module()
    logit, heat = program(torch.zeros(1, 4, 64, 64), torch.ones(1, 3))
    assert (tuple(logit.shape), tuple(heat.shape)) == ((1,), (1, 4, 8, 8))
