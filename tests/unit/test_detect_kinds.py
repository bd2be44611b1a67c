"""Networks of other people: what their numbers become, what is refused, and the package that a template makes."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import struct
import tomllib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from support import toys
from torch import Tensor, nn

from radnode.detect.detector import Detector
from radnode.detect.making import MARK, make_package, sign
from radnode.detect.manifest import OutputSpec, parse_manifest
from radnode.detect.package import Package, load_package
from radnode.detect.pixels import PixelImage, prepare
from radnode.detect.program import refuse_all_but_numbers, refuse_checkpoint
from radnode.detect.readings import MAX_CELLS, read_output
from radnode.errors import PackageError
from radnode.model import Analysis, Outcome

SPEC = {
    "finding": {"value": "1", "scheme": "99", "meaning": "f"},
    "site": {"value": "1", "scheme": "99", "meaning": "s"},
    "threshold": 0.5,
    "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0},
}
REGION = {"kind": "box", "share_of_peak": 0.5, "floor": 0.5, "min_peak": 0.5, "max_regions": 3}


class Corners(nn.Module):
    """Two classes: how bright the left and the right half are."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[3] // 2
        return torch.stack([x[:, 0, :, :half].mean(dim=(1, 2)), x[:, 0, :, half:].mean(dim=(1, 2))], dim=1) * 8.0


def scripted(module: nn.Module, extra: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), buffer, _extra_files=extra)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def script() -> bytes:
    return scripted(Corners())


def spec(form: str, **more: Any) -> OutputSpec:
    region = {} if form == "classes" else {"region": REGION}
    return OutputSpec.model_validate({**SPEC, **region, "form": form, **more})


def filled(folder: Path, *edits: tuple[str, str]) -> Path:
    """Fill a manifest in as a person would."""
    path = folder / "model.toml"
    text = re.sub(rf'"{MARK}: [^"]*"', '"said"', path.read_text())
    text = re.sub(rf" *# {MARK}: .*", "", text.partition("\n")[0].replace(MARK, "") + "\n" + text.partition("\n")[2])
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    return folder


def signed(folder: Path, key: Path) -> Package:
    sign(folder, key, key.stem)
    public: Any = load_pem_public_key(key.with_suffix(".pub").read_bytes())
    return load_package(folder, {key.stem: public})


# --- numbers


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_activation_gives_the_logit_of_its_probability(channel: int) -> None:
    values = torch.tensor([[0.3, -2.0, 1.5], [4.0, 0.0, -4.0]])
    softmax = torch.softmax(values, dim=1)[:, channel]
    for activation, given, wanted in (
        ("sigmoid", values, torch.sigmoid(values[:, channel])),
        ("softmax", values, softmax),
        ("none", torch.softmax(values, dim=1), softmax),
    ):
        logits, heat = read_output(given, spec("classes", channel=channel, activation=activation))
        assert heat is None
        assert torch.allclose(torch.sigmoid(logits), wanted, atol=1e-6), activation


def test_probabilities_of_0_and_1_have_logits_that_are_numbers() -> None:
    logits, _ = read_output(torch.tensor([[0.0], [1.0]]), spec("classes", activation="none"))
    assert torch.isfinite(logits).all()


def test_map_that_is_fine_keeps_the_highest_value_of_each_cell() -> None:
    values = torch.full((1, 2, 256, 256), -5.0)
    values[0, 1, 100, 37] = 3.0
    logits, heat = read_output([values, "something else"], spec("map", channel=1))
    assert heat is not None
    assert heat.shape == (1, MAX_CELLS, MAX_CELLS)
    assert float(heat[0, 25, 9]) == float(logits[0]) == 3.0


@pytest.mark.parametrize(
    ("said", "form", "more"),
    [
        (torch.zeros(2), "classes", {}),
        (torch.zeros(2, 1), "classes", {"channel": 1}),
        (torch.zeros(2, 1), "map", {}),
        ({"pred": torch.zeros(2, 1)}, "classes", {}),
    ],
)
def test_what_is_not_of_its_form_raises(said: object, form: str, more: dict[str, Any]) -> None:
    with pytest.raises((ValueError, AttributeError, TypeError)):
        read_output(said, spec(form, **more))


@pytest.mark.parametrize(
    "output",
    [
        {**SPEC, "form": "classes", "region": REGION},
        {**SPEC, "form": "map"},
        {**SPEC, "region": REGION, "channel": 1},
    ],
)
def test_output_that_contradicts_itself_is_none(output: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"region|channel"):
        OutputSpec.model_validate(output)


# --- what is refused


def test_pickles_are_refused_under_every_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(nn.Linear(1, 1), buffer)
    whole = buffer.getvalue()
    for content in (whole, pickle.dumps({"a": 1}), b"", whole[:100]):
        with pytest.raises(PackageError, match="not TorchScript"):
            refuse_checkpoint(content)
        with pytest.raises(PackageError, match="not safetensors"):
            refuse_all_but_numbers(content)
    for kind, suffix in (
        ("torchscript", ".pt"),
        ("export", ".pt2"),
        ("torchxrayvision", ".pt"),
        ("python", ".safetensors"),
    ):
        source = tmp_path / f"model{suffix}"
        source.write_bytes(whole)
        with pytest.raises(PackageError):
            make_package(kind, source, tmp_path / "made", "mine", "1.0.0")
        assert not (tmp_path / "made").exists()


def test_file_that_is_no_script_inside_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("m/constants.pkl", "m/code/__torch__.py", "m/data.pkl"):
            archive.writestr(name, "nonsense")
    make_package("torchscript", path, tmp_path / "mine", "mine", "1.0.0")
    package = signed(filled(tmp_path / "mine"), tmp_path / "me.key")
    with pytest.raises(PackageError, match="do not load with this torch"):
        Detector(package, "cpu")


def test_code_that_is_not_installed_is_named(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    make_package("python", tmp_path / "w.safetensors", tmp_path / "mine", "mine", "1.0.0")
    package = signed(filled(tmp_path / "mine"), tmp_path / "me.key")
    with pytest.raises(PackageError, match=r"^The entry point said of said said is not installed"):
        Detector(package, "cpu")


# --- templates


def test_script_becomes_a_detector_whose_findings_are_of_the_whole_image(tmp_path: Path, script: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(script)
    make_package("torchscript", tmp_path / "model.pt", tmp_path / "mine", "mine", "2.0.0")
    folder = filled(tmp_path / "mine", ("channel = 0", "channel = 1"))
    detector = Detector(signed(folder, tmp_path / "me.key"), "cpu")
    pixels = np.zeros((64, 64), dtype=np.float32)
    pixels[:, 32:] = 100.0
    bright, dark = detector.detect([PixelImage(pixels), PixelImage(pixels[:, ::-1])])
    assert isinstance(bright, Analysis)
    assert isinstance(dark, Analysis)
    assert (bright.outcome, dark.outcome) == (Outcome.FINDING, Outcome.NO_FINDING)
    assert bright.score == pytest.approx(1 / (1 + math.exp(-8.0)), abs=1e-3)
    [finding] = bright.findings
    assert (finding.score, finding.region, bright.peak) == (bright.score, None, None)
    again = detector.detect([PixelImage(pixels)] * 3)
    assert [answer.score for answer in again if isinstance(answer, Analysis)] == [bright.score] * 3


def test_nothing_is_signed_while_something_is_to_be_filled_in_and_signing_again_takes_new_digests(
    tmp_path: Path, script: bytes
) -> None:
    (tmp_path / "model.ts").write_bytes(script)
    folder = make_package("torchscript", tmp_path / "model.ts", tmp_path / "mine", "mine", "1.0.0").parent
    with pytest.raises(PackageError, match=r"still to be filled in at line \d+, \d+"):
        sign(folder, tmp_path / "me.key", "me")
    assert not (tmp_path / "me.key").exists()
    first = signed(filled(folder), tmp_path / "me.key")
    assert (tmp_path / "me.key").stat().st_mode & 0o777 == 0o600
    (folder / "MODEL_CARD.md").write_text("# More\n")
    (folder / "figures").mkdir()
    (folder / "figures" / "roc.png").write_bytes(b"png")
    second = signed(folder, tmp_path / "me.key")
    assert set(second.manifest.files) == {"MODEL_CARD.md", "figures/roc.png", "weights.ts"}
    assert second.manifest.files["MODEL_CARD.md"] != first.manifest.files["MODEL_CARD.md"]
    assert second.manifest.device_uid == first.manifest.device_uid


def bundle(folder: Path, script: bytes, **changes: Any) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "models" / "model.ts").write_bytes(script)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata(**changes)))
    return folder


def metadata(
    *, inputs: dict[str, Any] | None = None, outputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    image = {"modality": "MR", "num_channels": 1, "spatial_shape": [256, 192], "value_range": [-1, 1], **(inputs or {})}
    pred = {"num_channels": 3, "spatial_shape": [256, 192], "channel_def": {"0": "background", "1": "left"}}
    formats = {"inputs": {"image": image}, "outputs": {"pred": {**pred, **(outputs or {})}}}
    return {"authors": "Somebody", "license": "MIT", "network_data_format": formats, **more}


def test_monai_bundle_tells_input_and_output(tmp_path: Path, script: bytes) -> None:
    make_package("monai", bundle(tmp_path / "bundle", script), tmp_path / "mine", "mine", "1.0.0")
    manifest = tomllib.loads((tmp_path / "mine" / "model.toml").read_text())
    given = manifest["input"]
    assert given["size"] == 256
    ends = [(value - given["mean"][0]) / given["std"][0] for value in (0.0, 1.0)]
    assert ends == pytest.approx([-1.0, 1.0])
    assert manifest["accepts"]["modalities"] == ["MR"]
    assert (manifest["output"]["form"], manifest["output"]["channel"]) == ("map", 1)
    assert (manifest["manufacturer"], manifest["licence"]) == ("Somebody", "MIT")


def test_monai_file_with_its_metadata_inside_is_a_bundle_too(tmp_path: Path) -> None:
    document = metadata(inputs={"num_channels": 3, "value_range": []}, outputs={"spatial_shape": [1, 3]})
    (tmp_path / "model.ts").write_bytes(scripted(Corners(), {"metadata.json": json.dumps(document)}))
    make_package("monai", tmp_path / "model.ts", tmp_path / "mine", "mine", "1.0.0")
    manifest = tomllib.loads((tmp_path / "mine" / "model.toml").read_text())
    assert manifest["input"]["mean"] == [0.0] * 3
    assert manifest["input"]["std"] == [1.0] * 3
    assert manifest["output"]["form"] == "classes"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inputs": {"spatial_shape": [96, 96, 96]}}, "looks at 3 dimensions"),
        ({"inputs": {"num_channels": 4}}, "4 channels"),
        ({"inputs": {"spatial_shape": ["*", 16]}}, "does not say"),
        ({"network_data_format": {}}, "does not say"),
    ],
)
def test_monai_bundle_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path: Path, script: bytes, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PackageError, match=sentence):
        make_package("monai", bundle(tmp_path / "bundle", script, **changes), tmp_path / "mine", "mine", "1.0.0")


@pytest.mark.parametrize(
    ("name", "version"), [("Mine", "1.0.0"), ("../mine", "1.0.0"), ("mine", "1.0"), ("mine", "v1")]
)
def test_name_and_version_are_checked_before_anything_is_written(
    tmp_path: Path, script: bytes, name: str, version: str
) -> None:
    (tmp_path / "model.ts").write_bytes(script)
    with pytest.raises(PackageError, match="is not a name"):
        make_package("torchscript", tmp_path / "model.ts", tmp_path / "made", name, version)
    assert not (tmp_path / "made").exists()


def test_window_is_fixed_and_one_channel_is_one() -> None:
    text = toys.MANIFEST.format(
        name="toy",
        version="0.0.1",
        number=1,
        digest="0" * 64,
        level="instance",
        sop_class=toys.CT_IMAGE,
        modality="CT",
        threshold=0.5,
        table="[input]\nsize = 64\nwindow = [-1000.0, 400.0]\nmean = [0.5]\nstd = [0.5]\n",
    )
    manifest = parse_manifest(text.encode())
    assert manifest.input is not None
    tensor, _ = prepare(PixelImage(np.full((64, 64), -300.0, dtype=np.float32)), manifest.input)
    assert tensor.shape == (1, 64, 64)
    assert float(tensor[0, 0, 0]) == 0.0
    for wrong in ("percentiles = [0.0, 100.0]\nsize", "mean = [0.5, 0.5]\nsize"):
        with pytest.raises(PackageError):
            parse_manifest(text.replace("size", wrong, 1).encode())
