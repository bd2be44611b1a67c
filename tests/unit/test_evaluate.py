"""scripts/evaluate says of a package what is so, from any labelled folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import films, toys
from torch import Tensor, nn

from radnode.detect.package import Package, load_package, load_trusted

ROOT = Path(__file__).parents[2]
SCRIPTS = str(ROOT / "scripts")
sys.path.insert(0, SCRIPTS)
from evaluation import instance, series  # noqa: E402 (scripts are a folder, not a package)
from evaluation.films import judge, labelled  # noqa: E402

sys.path.remove(SCRIPTS)

HEADER = "image,patient,view,truth,boxes\n"


class White(nn.Module):
    """Says how white the whitest cell is, and where."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = nn.functional.avg_pool2d(x[:, 0], 8)
        return heat.flatten(1).amax(dim=1), heat


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    models = tmp_path_factory.mktemp("models")
    return load_package(toys.install(models, "white", White()), load_trusted(models))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve films of 128 x 96: a large white square is an opacity, a dot is none."""
    lines = []
    for number in range(12):
        pixels = np.zeros((96, 128), dtype=np.uint8)
        side, left, top = (32, 8 * number, 40) if number % 2 else (6, 60, 60)
        pixels[top : top + side, left : left + side] = 255
        Image.fromarray(pixels).save(tmp_path / f"film{number}.png")
        truth = "opacity" if number % 2 else ("normal" if number % 4 else "abnormal")
        boxes = json.dumps([[left, top, side, side]]) if number % 2 else ""
        lines.append(f'film{number},patient{number // 2},{"AP" if number < 6 else "PA"},{truth},"{boxes}"\n')
    (tmp_path / "labels.csv").write_text(HEADER + "".join(lines))
    return tmp_path


def test_films_of_any_shape_are_measured_with_boxes_in_their_own_pixels(
    package: Package, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    figures = {item.name: item for item in instance.evaluate(package, folder, folder / "labels.csv", out, seed=0)}
    assert [item.value for item in figures.values()] == [1.0] * 6
    assert figures["highest point in a box"].low == 1.0
    assert sorted(path.name for path in out.iterdir()) == ["calibration.png", "examples.png", "froc.png", "roc.png"]
    said = capsys.readouterr().out
    assert "12 films of 6 patients, 6 with opacity; 0 not looked at" in said
    assert "| AUC within PA | 1.000 | 1.000-1.000 | - | - | - |" in said


def test_boxes_land_where_they_are(package: Package, folder: Path) -> None:
    judged, failed = judge(package, labelled(folder, folder / "labels.csv"))
    assert failed == []
    assert judged.films[3].boxes == ((48.0, 112.0, 64.0, 64.0),)  # 128 x 96 in a square of 256: 32 pixels above


def test_what_cannot_be_decoded_is_counted_and_a_table_without_films_is_refused(package: Package, folder: Path) -> None:
    Image.fromarray(np.zeros((96, 128), dtype=np.uint8)).save(folder / "film3.png")  # no contrast
    judged, failed = judge(package, labelled(folder, folder / "labels.csv"))
    assert (len(judged.films), failed) == (11, ["film3"])
    (folder / "other.csv").write_text(HEADER + "nowhere,p,AP,normal,\n")
    with pytest.raises(SystemExit, match="No film"):
        labelled(folder, folder / "other.csv")
    (folder / "odd.csv").write_text("image,truth\nfilm1,normal\n")
    with pytest.raises(SystemExit, match="no columns image, patient"):
        labelled(folder, folder / "odd.csv")


def test_figures_stand_beside_those_of_the_card() -> None:
    models = ROOT / "models"
    package = load_package(max((models / "cxr-opacity").glob("*.*.*")), load_trusted(models))
    said = package.manifest.performance[0]
    inside = instance.row(package, instance.Figure(said.name, said.value, 0.7, 0.9))
    assert inside.endswith(f"| {said.value:.3f} | {said.low:.3f}-{said.high:.3f} | yes |")
    assert instance.row(package, instance.Figure(said.name, said.low - 0.01, 0.7, 0.9)).endswith("| NO |")


def test_scans_without_readers_are_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="No XML file"):
        series.evaluate(package, tmp_path, tmp_path / "out")


def test_nodule_of_the_bundled_slab_is_found_where_its_readers_drew_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ROOT / "models"
    package = load_package(models / "ct-nodule/1.0.0", load_trusted(models))
    [case] = series.evaluate(package, films.CT[0].parent, tmp_path)
    [found] = case.matches
    assert found.finding is not None
    assert (found.within, case.false) == (4, 0)
    assert found.overlap > 0.75
    assert found.ratio_on_slice == pytest.approx(1.0, abs=0.1)
    assert (tmp_path / "ct_lidc_0001-1.png").stat().st_size > 10_000
    assert "1 of 1 nodules found, 0.00 false a scan." in capsys.readouterr().out
