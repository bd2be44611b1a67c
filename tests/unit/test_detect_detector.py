"""The detector: what numbers become, and that one image never harms its neighbours."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import toys
from torch import Tensor, nn

from radnode.detect.detector import Detector
from radnode.detect.manifest import parse_manifest
from radnode.detect.package import Package, load_package, load_trusted
from radnode.detect.parts import Parts
from radnode.detect.pixels import PixelImage
from radnode.detect.precision import choose
from radnode.detect.program import load_program, refuse_pickles
from radnode.errors import DetectionError, PackageError
from radnode.model import Analysis, Code, Outcome, Reason

MODELS = Path(__file__).parents[2] / "models"


class Toy(nn.Module):
    """Bright cells are hot: heat logit = mean of the 8 x 8 pixels under the cell, image logit = the highest."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = nn.functional.avg_pool2d(x[:, 0], 8)
        return heat.flatten(1).amax(dim=1) + 0.0, heat * 1.0


@pytest.fixture(scope="module")
def toy_weights() -> bytes:
    return toys.program(Toy())


def toy_package(folder: Path, weights: bytes) -> Package:
    toys.package(folder, "toy", weights, percentiles=[1.0, 99.0], threshold=0.9)
    return load_package(folder, {"tests": toys.KEY.public_key()})


@pytest.fixture
def toy(tmp_path: Path, toy_weights: bytes) -> Detector:
    return Detector(toy_package(tmp_path / "toy" / "0.0.1", toy_weights), device="cpu")


def square(left: int = 64, top: int = 32, side: int = 32, **more: Any) -> PixelImage:
    """A dark 128 x 256 image (a square of the toy is 32 pixels) with a bright square."""
    pixels = np.zeros((128, 256), dtype=np.float32)
    pixels[top : top + side, left : left + side] = 1000.0
    return PixelImage(pixels, **more)


def analysis(answer: Analysis | DetectionError) -> Analysis:
    assert isinstance(answer, Analysis)
    return answer


def test_bright_square_is_found_where_it_lies_in_the_source(toy: Detector) -> None:
    found = analysis(toy.detect([square()])[0])
    assert found.outcome is Outcome.FINDING
    assert found.target == Code("112001", "DCM", "Opacity")
    assert found.model == toy.identity
    assert found.score == pytest.approx(0.971, abs=0.002)
    (finding,) = found.findings
    assert finding.score == found.score
    assert finding.site == Code("39607008", "SCT", "Lung")
    assert finding.laterality is None
    assert finding.diameter_mm is None
    assert finding.region is not None
    assert finding.region.kind == "box"
    assert finding.region.points == ((64.0, 32.0), (96.0, 32.0), (96.0, 64.0), (64.0, 64.0))
    assert found.peak == (80.0, 48.0)


def test_box_is_clipped_to_the_image(toy: Detector) -> None:
    found = analysis(toy.detect([PixelImage(square().pixels[:120, :])])[0])
    for finding in found.findings:
        assert finding.region is not None
        assert all(0 <= column <= 256 and 0 <= row <= 120 for column, row in finding.region.points)


def test_diameter_is_given_only_for_spacing_in_the_patient(toy: Detector) -> None:
    images = [square(spacing=(0.5, 0.25), spacing_at="patient"), square(spacing=(0.5, 0.25), spacing_at="detector")]
    patient, detector = (analysis(answer).findings[0] for answer in toy.detect(images))
    assert patient.diameter_mm == pytest.approx(16.0)
    assert detector.diameter_mm is None


def test_image_below_the_threshold_has_score_and_peak_but_no_finding(toy: Detector) -> None:
    faint = np.tile(np.arange(256, dtype=np.float32) // 16 % 2, (256, 1))
    answer = analysis(toy.detect([PixelImage(faint)])[0])
    assert answer.outcome is Outcome.NO_FINDING
    assert answer.findings == ()
    assert answer.score is not None
    assert answer.score < 0.9
    assert answer.peak is not None
    assert answer.reason is None


def test_image_without_contrast_fails_and_its_neighbours_do_not(toy: Detector) -> None:
    flat = PixelImage(np.full((128, 128), 7.0, dtype=np.float32))
    before, failed, after = toy.detect([square(), flat, square()])
    assert isinstance(failed, DetectionError)
    assert failed.reason is Reason.PIXELS_UNDECODABLE
    assert before == after
    assert analysis(before).outcome is Outcome.FINDING


def test_no_images_give_no_answers(toy: Detector) -> None:
    assert toy.detect([]) == []


def test_batch_that_raises_is_tried_one_by_one(toy: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = toy._forward, []

    def moody(batch: np.ndarray) -> Any:
        calls.append(len(batch))
        if any(image[0, 0, 0] > 0 for image in batch):
            raise RuntimeError("bad luck")
        return forward(batch)

    monkeypatch.setattr(toy, "_forward", moody)
    poison = PixelImage(1000 - square(0, 0, 64).pixels[:128, :128])
    poison.pixels[:8, :8] = 1000.0
    good, bad, other = toy.detect([square(), poison, square(160, 64)])
    assert calls == [3, 1, 1, 1]
    assert isinstance(bad, DetectionError)
    assert bad.reason is Reason.MODEL_RAISED
    assert analysis(good).outcome is analysis(other).outcome is Outcome.FINDING


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["logit", "heat"])
def test_numbers_that_are_none_are_a_failure_of_that_image_alone(
    toy: Detector, monkeypatch: pytest.MonkeyPatch, value: float, where: str
) -> None:
    forward = toy._forward

    def broken(batch: np.ndarray) -> Any:
        logits, heats = (array.copy() for array in forward(batch))
        if where == "logit":
            logits[1] = value
        else:
            heats[1, 0, 0] = value
        return logits, heats

    monkeypatch.setattr(toy, "_forward", broken)
    good, bad = toy.detect([square(), square()])
    assert isinstance(bad, DetectionError)
    assert bad.reason is Reason.MODEL_OUTPUT_INVALID
    assert analysis(good).outcome is Outcome.FINDING


@pytest.mark.parametrize("content", [b"", b"noise", b"PK\x05\x06" + bytes(18)])
def test_weights_that_are_no_program_do_not_load(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PackageError, match=r"torch\.export"):
        Detector(toy_package(tmp_path / "toy" / "0.0.1", content), device="cpu")


def test_program_that_would_unpickle_anything_is_refused(toy_weights: bytes) -> None:
    refuse_pickles(toy_weights)
    with zipfile.ZipFile(io.BytesIO(toy_weights)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(entries)).partition("/")[0]
    changes = {
        f"{root}/data/sample_inputs/model.pt": b"pickle",
        f"{root}/data/constants/custom_obj_0": b"pickle",
        f"{root}/data/weights/model_weights_config.json": b'{"config": {"w": {"use_pickle": true}}}',
        f"{root}/data/constants/model_constants_config.json": b'{"config": {"w": {}}}',
    }
    for name, content in changes.items():
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for other, old in (entries | {name: content}).items():
                archive.writestr(other, old)
        with pytest.raises(PackageError, match="pickled"):
            refuse_pickles(buffer.getvalue())


def test_model_that_answers_in_another_shape_does_not_load(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean(dim=(2, 3)), x[:, 0]

    with pytest.raises(PackageError, match="heat"):
        Detector(toy_package(tmp_path / "toy" / "0.0.1", toys.program(Odd())), device="cpu")


def test_shipped_model_answers_the_same_alone_and_in_any_company() -> None:
    package = load_package(MODELS / "cxr-opacity" / "1.0.0", load_trusted(MODELS))
    detector = Detector(package, device="cpu", threads=1)
    rng = np.random.default_rng(3)
    images = [
        PixelImage(np.kron(rng.uniform(0, 4000, (rows // 16, columns // 16)), np.ones((16, 16))).astype(np.float32))
        for rows, columns in ((512, 512), (640, 400), (256, 1024))
    ]
    together = [analysis(answer) for answer in detector.detect(images)]
    reversed_order = [analysis(answer) for answer in detector.detect(images[::-1])][::-1]
    for image, one, two in zip(images, together, reversed_order, strict=True):
        alone = analysis(detector.detect([image])[0])
        for other in (one, two):
            assert other.outcome is alone.outcome
            assert other.score == pytest.approx(alone.score, abs=1e-5)
            assert other.peak == alone.peak
            assert len(other.findings) == len(alone.findings)


def test_shipped_program_answers_the_same_in_a_batch() -> None:
    program = load_program((MODELS / "cxr-opacity" / "1.0.0" / "weights.pt2").read_bytes())
    batch = torch.rand((5, 3, 256, 256), generator=torch.Generator().manual_seed(1)) * 4 - 2
    with torch.inference_mode():
        logits, heats = program(batch)
        for index in range(len(batch)):
            logit, heat = program(batch[index : index + 1])
            torch.testing.assert_close(
                torch.sigmoid(logits[index : index + 1]), torch.sigmoid(logit), rtol=0, atol=1e-5
            )
            torch.testing.assert_close(torch.sigmoid(heats[index : index + 1]), torch.sigmoid(heat), rtol=0, atol=1e-5)


def test_shipped_manifest_is_honest_about_its_status() -> None:
    manifest = parse_manifest((MODELS / "cxr-opacity" / "1.0.0" / "model.toml").read_bytes())
    assert manifest.status == "research"
    assert {figure.name for figure in manifest.performance} >= {"AUC within AP", "AUC within PA"}
    assert all(figure.low <= figure.value <= figure.high for figure in manifest.performance)


def test_precision_is_float32_unless_asked_for_and_stands_in_the_report(tmp_path: Path, toy_weights: bytes) -> None:
    package = toy_package(tmp_path / "toy" / "0.0.1", toy_weights)
    plain, half = (Detector(package, "cpu", precision=precision) for precision in ("float32", "bfloat16"))
    assert half.identity.parameters == (*plain.identity.parameters, "computed in bfloat16")
    assert analysis(half.detect([square()])[0]).score == pytest.approx(
        analysis(plain.detect([square()])[0]).score or 0.0, abs=0.01
    )


def test_bfloat16_is_chosen_only_where_it_is_quicker_and_says_the_same() -> None:
    slow, quick = torch.tensor([1.0, 2.0]), torch.tensor([1.01, 2.0])

    def network(difference: float, seconds: tuple[float, float]) -> Any:
        def run(_noise: Tensor) -> Tensor:
            is_half = torch.is_autocast_enabled("cpu")
            time.sleep(seconds[is_half])
            return slow + difference * is_half if difference else (quick if is_half else slow)

        return run

    def raises(_noise: Tensor) -> Tensor:
        raise RuntimeError("no such kernel")

    shape = (2, 1, 32, 32)
    assert choose(network(0.0, (0.02, 0.002)), shape, "cpu", "auto") is True
    assert choose(network(0.0, (0.02, 0.02)), shape, "cpu", "auto") is False
    assert choose(network(0.1, (0.02, 0.002)), shape, "cpu", "auto") is False
    assert choose(raises, shape, "cpu", "auto") is False
    assert choose(raises, shape, "cpu", "float32") is False
    assert choose(raises, shape, "cpu", "bfloat16") is True


def test_memory_that_runs_out_halves_the_batches_for_good_and_fails_one_image_alone() -> None:
    asked: list[int] = []

    def network(room: int) -> Any:
        def run(part: Tensor) -> Tensor:
            asked.append(len(part))
            if len(part) > room:
                raise torch.OutOfMemoryError
            return part * 2

        return run

    parts, batch = Parts(64), torch.arange(20.0)
    assert torch.equal(torch.cat(parts.run(network(6), batch)), batch * 2)
    assert parts.together == 4
    asked.clear()
    parts.run(network(6), batch)
    assert asked == [4] * 5
    with pytest.raises(torch.OutOfMemoryError):
        parts.run(network(0), batch)
    assert parts.together == 1
