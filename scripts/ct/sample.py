"""Patches to train on, drawn without end from the lung of one patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ct.net import APART_MM, CHANNELS, REACH
from ct.scan import Scan
from ct.shapes import DIAMETER_MM, Nodule, Places, add_tissue, hounsfield, scar, vessel
from radnode.detect.pixels import FloatImage

PATCH = 96
# Of ct_c3n00247, slices counted from the feet: what no patch of training touches, and the patient's own nodule in it.
VALIDATION = range(20, 43)
OWN_NODULE = (31, 168.0, 106.0)  # slice, and row and column of the source
OWN_RADIUS_MM = 24.0
_LUNG = hounsfield(-550.0)


@dataclass(frozen=True)
class Seeds:
    """Voxels (slice, row, column) of a scan to put patches around, each (N, 3).

    `inner` is uint8 (S, SIDE, SIDE): what is lung, small vessels included, and no wall: of a nodule that grows out of
    the wall only the part in there can be seen.
    """

    airy: np.ndarray
    dense: np.ndarray
    edge: np.ndarray
    inner: np.ndarray

    @classmethod
    def of(cls, scan: Scan, allowed: np.ndarray) -> Seeds:
        """Collect those on the allowed slices: within lung, on vessels and hila, and where lung meets its wall."""
        within = scan.lung & allowed[:, None, None]
        airy = within & (scan.slices < _LUNG)
        airy = _large(ndimage.binary_erosion(airy, np.ones((1, 5, 5))))
        dense = within & (scan.slices > hounsfield(-250.0))
        near = ndimage.distance_transform_edt(~airy, sampling=(1000.0, 1.0, 1.0)) < 9.0
        solid = ndimage.uniform_filter(scan.slices, (1, 17, 17)) > hounsfield(-420.0)
        edge = within & (scan.slices < hounsfield(-300.0)) & solid
        inner = ndimage.binary_closing(scan.lung & (scan.slices < _LUNG), np.ones((1, 7, 7)))
        return cls(np.argwhere(airy), np.argwhere(dense & near), np.argwhere(edge), inner.astype(np.uint8))


def own_nodule(scan: Scan) -> tuple[float, float, float]:
    """Return the middle of the patient's own nodule as slice, row and column of the grid."""
    number, row, column = OWN_NODULE
    x, y = scan.to_grid(*scan.volume.geometry.to_network(column, row))
    return float(number), y, x


def _large(mask: np.ndarray) -> np.ndarray:
    """Return the parts of a mask that are at least a tenth of its largest part: lungs, no air in or around the body."""
    parts, _ = ndimage.label(mask)
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    return (counts >= counts.max() / 10)[parts]


def allowed_slices(count: int) -> np.ndarray:
    """Return which slices patches of training may be centred on, (count,): none that reaches into validation."""
    numbers = np.arange(count)
    gap = REACH + 2
    return (numbers < VALIDATION.start - gap) | (numbers >= VALIDATION.stop + gap)


@dataclass(frozen=True)
class Patch:
    """`pixels` float32 (9, 96, 96) in 0..1; `target` the share of nodule in each pixel of the middle slice."""

    pixels: FloatImage
    target: FloatImage


def draw(scan: Scan, seeds: Seeds, rng: np.random.Generator) -> Patch:
    """Return one patch: with a nodule two times of three, with vessels and scars that are none, or as it is."""
    kind = rng.choice(["nodule", "look-alike", "plain"], p=[0.62, 0.2, 0.18])
    pool = {
        "nodule": rng.choice(["airy", "edge", "dense"], p=[0.5, 0.36, 0.14]),
        "look-alike": "airy",
        "plain": rng.choice(["airy", "edge", "dense"], p=[0.15, 0.25, 0.6]),
    }[str(kind)]
    chosen = getattr(seeds, str(pool))
    seed = chosen[rng.integers(len(chosen))]
    pixels, inner, places, at = _cut(scan, seeds.inner, seed, rng)
    target = np.zeros(pixels.shape, dtype=np.float32)
    if kind == "look-alike" or (kind == "nodule" and rng.random() < 0.3):
        for _ in range(int(rng.integers(1, 4))):
            _look_alike(pixels, places, rng)
    if kind == "nodule":
        small, large = DIAMETER_MM
        diameter = float(np.exp(rng.uniform(np.log(small), np.log(large))))
        if rng.random() < 0.3:
            diameter = float(rng.uniform(14.0, large))
        off = float(rng.uniform(-0.65, 0.65)) * diameter
        nodule = Nodule.draw(rng, (off, at[0], at[1]), diameter)
        target = nodule.paint(pixels, places, rng) * inner
        if rng.random() < 0.12:
            other = tuple(float(value) for value in rng.uniform(-35, 35, 2))
            second = Nodule.draw(rng, (float(rng.uniform(-3, 3)), *other), float(rng.uniform(4, 12)))
            target = np.maximum(target, second.paint(pixels, places, rng) * inner)
    return Patch(_tone(pixels, rng), target[REACH])


def _cut(
    scan: Scan, inner: np.ndarray, seed: np.ndarray, rng: np.random.Generator
) -> tuple[FloatImage, FloatImage, Places, np.ndarray]:
    """Return pixels and what is inner (9, 96, 96) around a seed, turned and scaled, and where voxels and seed lie.

    Places are in mm from the middle of the patch; the seed is at (y, x) in mm.
    """
    at = rng.uniform(-26, 26, 2)
    angle, zoom = np.deg2rad(rng.uniform(-35, 35)), rng.uniform(0.85, 1.18)
    flips = rng.choice([-1.0, 1.0], 3)
    exact = rng.random() < 0.5
    apart = 1.0 if exact else APART_MM / scan.step * rng.uniform(0.85, 1.15)
    middle = seed[0] if exact else seed[0] + rng.uniform(-0.5, 0.5)
    numbers = np.clip(middle + flips[0] * apart * np.arange(-REACH, REACH + 1), 0, len(scan.slices) - 1)
    line = np.arange(PATCH) - (PATCH - 1) / 2
    y, x = np.meshgrid(line - at[0], line - at[1], indexing="ij")
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows = seed[1] + flips[1] * (cos * y - sin * x)
    columns = seed[2] + flips[2] * (sin * y + cos * x)
    shape = (CHANNELS, PATCH, PATCH)
    where = np.stack([
        np.broadcast_to(numbers[:, None, None], shape), np.broadcast_to(rows, shape), np.broadcast_to(columns, shape)
    ])  # fmt: skip
    pixels = ndimage.map_coordinates(scan.slices, where, order=1, mode="constant", cval=0.0)
    lung = ndimage.map_coordinates(inner, where, order=0, mode="constant")
    heights = APART_MM * np.arange(-REACH, REACH + 1, dtype=float)
    places = heights[:, None, None], line[None, :, None], line[None, None, :]
    return pixels.astype(np.float32), lung.astype(np.float32), places, at


def _look_alike(pixels: FloatImage, places: Places, rng: np.random.Generator) -> None:
    """Put a vessel or a scar into the patch."""
    at = (float(rng.uniform(-8, 8)), *(float(value) for value in rng.uniform(-35, 35, 2)))
    share = vessel(places, at, rng) if rng.random() < 0.72 else scar(places, at, rng)
    add_tissue(pixels, share, hounsfield(float(rng.uniform(-150, 250))), rng)


def _tone(pixels: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Return the patch as another scanner might show it: smoother or noisier, lighter or darker."""
    if rng.random() < 0.4:
        pixels = ndimage.gaussian_filter(pixels, (0.0, *[rng.uniform(0.3, 0.9)] * 2))
    if rng.random() < 0.5:
        noise = rng.normal(size=pixels.shape)
        if rng.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, (0, 0.7, 0.7)) * 2.5
        pixels = pixels + rng.uniform(0.0, 0.035) * noise
    pixels = pixels * rng.uniform(0.96, 1.04) + rng.uniform(-0.02, 0.02)
    return np.clip(pixels, 0.0, 1.0).astype(np.float32)
