"""Signed model packages: toys of images whose trap is a white top left corner, and one of whole series."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydicom.dataset import Dataset
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from radnode.detect.package import sign_package
from support import films

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WHITE = 3.5  # of -4..4 after normalisation

MANIFEST = """
format = 1
name = "{name}"
version = "{version}"
device_uid = "2.25.{number}"
manufacturer = "radnode"
status = "research"
licence = "Apache-2.0"
intended_use = "Tests."
weights = "weights.pt2"
performance = []
files = {{ "weights.pt2" = "{digest}" }}
[accepts]
level = "{level}"
sop_classes = ["{sop_class}"]
modalities = ["{modality}"]
body_parts = []
views = []
missing_body_part = "accept"
missing_view = "accept"
photometric_interpretations = ["MONOCHROME2"]
min_rows = 64
min_columns = 64
{table}
[output]
threshold = {threshold}
finding = {{ value = "112001", scheme = "DCM", meaning = "Opacity" }}
site = {{ value = "39607008", scheme = "SCT", meaning = "Lung" }}
calibration = {{ method = "platt", slope = 1.0, intercept = 0.0 }}
region = {{ kind = "box", share_of_peak = 0.4, floor = 0.05, min_peak = 0.05, max_regions = 10 }}
[training]
split = "none"
deidentification = "synthetic"
pretrained = "none"
seed = 0
command = "none"
sources = [{{ name = "noise", licence = "CC0-1.0", citation = "none", images = 0, patients = 0 }}]
"""


INPUT = """[input]
size = 64
percentiles = {percentiles}
mean = [0.5, 0.5, 0.5]
std = [0.125, 0.125, 0.125]
"""
VOLUME = """[volume]
size = 64
window = [-1000.0, 3000.0]
min_slices = 3
max_slices = 400
"""
CR_IMAGE, CT_IMAGE = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2"


class _Toy(nn.Module):
    """Sees nothing; steps into its trap when the corner is white."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = nn.functional.avg_pool2d(x[:, 0], 8)
        return heat.flatten(1).amin(dim=1) - 100.0 + self.trap(heat[:, 0, 0].amax()), heat * 0.0

    def trap(self, corner: Tensor) -> Tensor:
        return corner * 0.0


class Hangs(_Toy):
    """Never ends: a loop whose condition the image decides."""

    def trap(self, corner: Tensor) -> Tensor:
        (left,) = while_loop(lambda left: left > WHITE, lambda left: (left * 1.0,), (corner,))
        return left * 0.0


class Raises(_Toy):
    """Reads past the end of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1))

    def trap(self, corner: Tensor) -> Tensor:
        return self.table[(corner > WHITE).long().reshape(1)].sum()


class NotANumber(_Toy):
    """Answers NaN."""

    def trap(self, corner: Tensor) -> Tensor:
        return torch.log((corner <= WHITE).float()) * (corner > WHITE).float()


class Says(nn.Module):
    """Says the same of every image: a logit that tells which version it is."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = nn.functional.avg_pool2d(x[:, 0], 8)
        return heat.flatten(1).amax(dim=1) * 0.0 + self.logit, heat * 0.0


class Bright(nn.Module):
    """Looks at a volume and finds what is brighter than anything in a patient, in any slice.

    A stack of slices is looked at with its step: without one it answers NaN.
    """

    def forward(self, volume: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        heat = (nn.functional.avg_pool2d(volume, 8) - 0.9) * 100.0
        return heat.flatten(1).amax(dim=1) + torch.log(steps[:, 0]) * 0.0, heat


class RaisesOnBright(Bright):
    """Reads past the end of a table when there is something bright."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1))

    def forward(self, volume: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        logit, heat = super().forward(volume, steps)
        return logit + self.table[(heat.amax() > 0).long().reshape(1)], heat


TOYS = {"toy-hangs": Hangs, "toy-raises": Raises, "toy-nan": NotANumber}


def program(module: nn.Module) -> bytes:
    """Return a module as an exported program for any batch of 64 x 64 images."""
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(module.eval(), (torch.zeros(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    exported._example_inputs = None  # they would be pickled
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


def series_program(module: nn.Module) -> bytes:
    """Return a module as an exported program for one volume of any number of 64 x 64 slices."""
    slices = torch.export.Dim("slices", min=2, max=4096)
    example = (torch.zeros(1, 5, 64, 64), torch.ones(1, 3))
    exported = torch.export.export(module.eval(), example, dynamic_shapes=({1: slices}, None))
    exported._example_inputs = None  # they would be pickled
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


def package(
    folder: Path,
    name: str,
    weights: bytes,
    *,
    percentiles: list[float],
    threshold: float,
    version: str = "0.0.1",
    key: Ed25519PrivateKey = KEY,
) -> Path:
    """Write a signed package of these weights into a folder of its own; return the folder."""
    table = INPUT.format(percentiles=percentiles)
    accepts = {"level": "instance", "sop_class": CR_IMAGE, "modality": "CR"}
    return _write(folder, name, weights, version, key, table=table, threshold=threshold, **accepts)


def series_package(folder: Path, name: str, weights: bytes, version: str = "0.0.1") -> Path:
    """Write a signed package that looks at whole CT series; return the folder."""
    accepts = {"level": "series", "sop_class": CT_IMAGE, "modality": "CT"}
    return _write(folder, name, weights, version, KEY, table=VOLUME, threshold=0.5, **accepts)


def _write(folder: Path, name: str, weights: bytes, version: str, key: Ed25519PrivateKey, **values: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.pt2").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    number = int.from_bytes(hashlib.sha256(f"{name} {version} {digest}".encode()).digest()[:8])
    manifest = MANIFEST.format(name=name, version=version, digest=digest, number=number, **values)
    (folder / "model.toml").write_text(manifest)
    sign_package(folder, key, "tests")
    return folder


def install(models: Path, name: str, module: nn.Module) -> Path:
    """Write a signed package into a models folder that trusts its key; return the package's folder."""
    trust(models)
    return package(models / name / "0.0.1", name, program(module), percentiles=[0.0, 100.0], threshold=1.0)


def install_series(models: Path, name: str, module: nn.Module) -> Path:
    """Write a signed package that looks at whole series into a models folder that trusts its key."""
    trust(models)
    return series_package(models / name / "0.0.1", name, series_program(module))


def trust(models: Path) -> None:
    """Trust the key that signs toys."""
    (models / "trusted").mkdir(parents=True, exist_ok=True)
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (models / "trusted" / "tests.pub").write_bytes(pem)


def film(StudyDescription: str, *, trapped: bool = False) -> Dataset:
    """A chest film for one detector (rules match by Study Description), with or without a white corner."""
    dataset = films.fresh(films.NORMAL, StudyDescription=StudyDescription)
    pixels = dataset.pixel_array.copy()
    rows, columns = pixels.shape
    pixels[: rows // 4, : columns // 4] = pixels.max() if trapped else 0
    dataset.PixelData = pixels.tobytes()
    return dataset
