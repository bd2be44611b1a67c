"""What a network finds in a scan of which the truth is known, and at which cut it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from ct.program import EDGE, Served
from ct.sample import OWN_RADIUS_MM, VALIDATION, Seeds, own_nodule
from ct.scan import Scan
from ct.shapes import Nodule, add_tissue, hounsfield, scar, vessel
from radnode.detect.lesions import Lesion, lesions
from radnode.detect.manifest import RegionSpec
from radnode.detect.outline import outlines
from radnode.detect.pixels import FloatImage

LOWEST = 0.05  # score of what is looked at for the curves
FALSE_PER_SLAB = 0.5  # that the cut allows on the synthetic slabs
APART_MM = 42.0  # between nodules of one slab
NEAR_MM = 3.0  # a finding whose middle is no further from a nodule is that nodule
SLABS = 16


def region(cut: float) -> RegionSpec:
    """Return the rule for regions whose score is at least `cut`: half of a region's highest heat is its edge."""
    return RegionSpec(kind="contour", share_of_peak=0.0, floor=cut / 2, min_peak=cut, max_regions=20)


@dataclass(frozen=True)
class Truth:
    """One pasted nodule: kind, longest diameter in mm on its largest slice, and its voxels, bool (S, R, C)."""

    kind: str
    diameter: float
    mask: np.ndarray


@dataclass(frozen=True)
class Slab:
    """Slices of lung, float32 (S, SIDE, SIDE), with what was pasted; `ignored` are voxels where findings count not."""

    slices: FloatImage
    truths: list[Truth]
    ignored: np.ndarray


@dataclass(frozen=True)
class Found:
    """One finding: score, longest diameter in mm, the index of the truth it is on, None when on none."""

    score: float
    diameter: float
    truth: int | None


def longest(points: Sequence[tuple[float, float]]) -> float:
    """Return the largest distance between two points, 0 without any."""
    if not points:
        return 0.0
    all_points = np.asarray(points)
    return float(np.sqrt(((all_points[:, None] - all_points[None]) ** 2).sum(axis=-1)).max())


def slabs(scan: Scan, seed: int) -> list[Slab]:
    """Return slabs of the slices that training never saw: half with nodules, half with look-alikes alone."""
    inner = Seeds.of(scan, np.isin(np.arange(len(scan.slices)), VALIDATION))
    kept = slice(VALIDATION.start, VALIDATION.stop)
    own = np.zeros(scan.slices.shape, dtype=bool)
    where, row, column = own_nodule(scan)
    number, y, x = np.ogrid[: own.shape[0], : own.shape[1], : own.shape[2]]
    own = ((number - where) * scan.step) ** 2 + (y - row) ** 2 + (x - column) ** 2 < OWN_RADIUS_MM**2
    result = []
    for index in range(SLABS):
        rng = np.random.default_rng([seed, 77, index])
        pixels = scan.slices[kept].copy()
        result.append(_pasted(pixels, inner, own[kept], scan.step, rng, nodules=3 if index % 2 == 0 else 0))
    return result


def _pasted(
    pixels: FloatImage, seeds: Seeds, own: np.ndarray, step: float, rng: np.random.Generator, nodules: int
) -> Slab:
    """Paste nodules or look-alikes into a slab and mirror it at times."""
    depth, rows, columns = pixels.shape
    places = (
        (np.arange(depth) * step)[:, None, None],
        np.arange(rows, dtype=float)[None, :, None],
        np.arange(columns, dtype=float)[None, None, :],
    )
    truths: list[Truth] = []
    centres: list[np.ndarray] = []
    start = VALIDATION.start
    while len(centres) < (nodules or 6):
        pool = seeds.airy if rng.random() < 0.65 else seeds.edge
        voxel = pool[rng.integers(len(pool))] - (start, 0, 0)
        at = voxel * (step, 1.0, 1.0)
        near = [np.linalg.norm(at - other) < APART_MM for other in centres]
        if any(near) or own[tuple(voxel)] or not 2 <= voxel[0] < depth - 2:
            continue
        centres.append(at)
        middle = (float(at[0]), float(at[1]), float(at[2]))
        if nodules:
            nodule = Nodule.draw(rng, middle, float(np.exp(rng.uniform(np.log(5.0), np.log(32.0)))))
            share = nodule.paint(pixels, places, rng) * seeds.inner[start : start + depth]
            mask = share >= EDGE
            if mask.any():
                widest = int(mask.sum(axis=(1, 2)).argmax())
                truths.append(Truth(nodule.kind, longest(outlines(share[widest], EDGE)[0]), mask))
        else:
            _look_alike(pixels, places, middle, rng)
    if rng.random() < 0.5:
        pixels, own = pixels[:, :, ::-1].copy(), own[:, :, ::-1]
        truths = [Truth(truth.kind, truth.diameter, truth.mask[:, :, ::-1]) for truth in truths]
    return Slab(np.clip(pixels, 0.0, 1.0), truths, own)


def _look_alike(
    pixels: FloatImage, places: tuple[np.ndarray, ...], at: tuple[float, float, float], rng: np.random.Generator
) -> None:
    """Paste a piece of vessel or a scar, no longer than a patch of training shows."""
    box = tuple(np.flatnonzero(np.abs(line.ravel() - middle) < 30) for line, middle in zip(places, at, strict=True))
    view = np.ix_(*box)
    near = places[0][box[0]], places[1][:, box[1]], places[2][:, :, box[2]]
    part = pixels[view]
    share = vessel(near, at, rng) if rng.random() < 0.7 else scar(near, at, rng)
    fade = np.ones_like(share)
    for axis, (line, middle) in enumerate(zip(near, at, strict=True)):
        if axis:
            fade = fade * np.clip((30.0 - np.abs(line - middle)) / 8.0, 0.0, 1.0)
    add_tissue(part, share * fade.astype(np.float32), hounsfield(float(rng.uniform(-100, 200))), rng)
    pixels[view] = part


@torch.inference_mode()
def heat_of(served: Served, slices: FloatImage, step: float) -> FloatImage:
    """Return the heat of slices on the grid, (S, SIDE, SIDE)."""
    steps = torch.tensor([[step, 1.0, 1.0]])
    return served.heat(torch.from_numpy(slices)[:, None], steps)[:, 0].numpy()


def judge(heat: FloatImage, slab: Slab, step: float) -> list[Found]:
    """Return the findings of a slab, the best score first; what lies on the patient's own nodule is left out."""
    side = heat.shape[1]
    near = [ndimage.distance_transform_edt(~truth.mask, sampling=(step, 1.0, 1.0)) <= NEAR_MM for truth in slab.truths]
    result = []
    for lesion in lesions(heat, region(LOWEST)):
        if not lesion.contour:
            continue
        points = [(x * side, y * side) for x, y in lesion.contour]
        column, row = (min(max(round(value), 0), side - 1) for value in np.mean(points, axis=0))
        if slab.ignored[lesion.slice, row, column]:
            continue
        hit = [index for index, mask in enumerate(near) if mask[lesion.slice, row, column]]
        result.append(Found(_score(lesion, heat), longest(points), hit[0] if hit else None))
    return result


def _score(lesion: Lesion, heat: FloatImage) -> float:
    """Return the highest heat of a lesion."""
    return lesion.box.share * float(heat.max())


def choose_cut(judged: Sequence[Sequence[Found]]) -> float:
    """Return the lowest score at which the slabs together have no more false findings than allowed."""
    false = sorted((found.score for slab in judged for found in slab if found.truth is None), reverse=True)
    allowed = int(FALSE_PER_SLAB * len(judged))
    if len(false) <= allowed:
        return 0.25
    return max(0.25, min(0.9, round(false[allowed] + 0.005, 3)))
