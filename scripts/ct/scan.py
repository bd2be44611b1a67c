"""A CT series of a folder as training and measuring see it: through the same steps as in a node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from torch.nn import functional

from ct.grid import COARSE, SIDE, SIZE, WINDOW, center, lungs, to_grid
from radnode.detect.manifest import VolumeSpec
from radnode.detect.pixels import FloatImage, decode_pixels
from radnode.detect.volume import Volume, VolumeBuilder, in_order, place

SPEC = VolumeSpec(size=SIZE, window=WINDOW, min_slices=8, max_slices=800)


@dataclass(frozen=True)
class Scan:
    """A series on the grid.

    `slices` is float32 (S, SIDE, SIDE) in 0..1, pixels of 1 mm; `lung` (S, SIDE, SIDE) is True where the lungs are;
    `step` is mm between slices. `volume` is what a node hands over, `middle` where the grid lies in it (`center`),
    `uids` the SOP Instance UIDs in order along the normal.
    """

    volume: Volume
    slices: FloatImage
    lung: np.ndarray
    step: float
    middle: torch.Tensor
    uids: list[str]

    def steps(self) -> torch.Tensor:
        """mm between slices, rows and columns of the volume, (1, 3)."""
        return torch.tensor([self.volume.steps], dtype=torch.float32)

    def to_grid(self, x: float, y: float) -> tuple[float, float]:
        """Return (x, y) on the grid for (x, y) in the volume's square, both in pixels from the top left corner."""
        mm = self.volume.steps[2], self.volume.steps[1]
        half = SIZE / 2
        on_grid = [
            (value - half - float(middle) * half) * step + SIDE / 2
            for value, middle, step in zip((x, y), self.middle, mm, strict=True)
        ]
        return on_grid[0], on_grid[1]


@torch.inference_mode()
def read_scan(folder: Path) -> Scan:
    """Read the `*.dcm` files in a folder and its folders as one volume.

    Raises:
        DetectionError: they do not form one, or cannot be decoded.
    """
    paths = sorted(folder.rglob("*.dcm"))
    files = [path.read_bytes() for path in paths]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    order, step = in_order([place(header) for header in headers])
    builder = VolumeBuilder(SPEC, len(files), step)
    for index, number in enumerate(order):
        builder.put(index, decode_pixels(files[number]))
    return on_grid(builder.finish(), [str(headers[number].SOPInstanceUID) for number in order])


@torch.inference_mode()
def on_grid(volume: Volume, uids: list[str]) -> Scan:
    """Return a volume on the grid."""
    pixels = torch.from_numpy(volume.pixels)[:, None]
    middle = center(pixels)
    slices = to_grid(pixels, torch.tensor([volume.steps], dtype=torch.float32), middle)
    coarse = lungs(functional.avg_pool2d(slices, COARSE))
    lung = functional.interpolate(coarse, size=(SIDE, SIDE), mode="nearest")[:, 0].numpy() > 0
    return Scan(volume, slices[:, 0].numpy(), lung, volume.steps[0], middle, uids)
