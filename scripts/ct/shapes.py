"""Synthetic nodules, vessels and scars: how much of each voxel they fill, and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct.grid import WINDOW
from radnode.detect.pixels import FloatImage

KINDS = ("solid", "spiculated", "ground glass", "part-solid")
DIAMETER_MM = (3.0, 36.0)
THICK_MM = 3.0  # of a slice: what a voxel averages over
SUBSLICES = 4

Places = tuple[np.ndarray, np.ndarray, np.ndarray]  # z (Z, 1, 1), y (1, Y, 1), x (1, 1, X), in mm


def hounsfield(value: float) -> float:
    """Return HU on the scale of the volume, 0..1 within the window."""
    return (value - WINDOW[0]) / (WINDOW[1] - WINDOW[0])


@dataclass(frozen=True)
class Nodule:
    """One nodule, centre `at` (z, y, x) in mm.

    `waves` (N, 4) are plane waves on the sphere of directions with their phase, `spikes` (N, 5) a direction with
    height and sharpness: together they say how far the edge lies in each direction, in shares of `radius` (mm).
    """

    kind: str
    at: tuple[float, float, float]
    radius: float
    axes: np.ndarray
    waves: np.ndarray
    spikes: np.ndarray
    edge_mm: float
    level: float
    core: tuple[float, float] | None

    @classmethod
    def draw(cls, rng: np.random.Generator, at: tuple[float, float, float], diameter: float) -> Nodule:
        """Return a nodule of some kind, its longest diameter near `diameter` (mm)."""
        kind = str(rng.choice(KINDS, p=(0.36, 0.34, 0.15, 0.15)))
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        stretch = rng.uniform(0.72, 1.0, 3)
        stretch[rng.integers(3)] = 1.0
        rough = rng.uniform(0.03, 0.16)
        waves = np.concatenate([rng.normal(scale=2.2, size=(8, 3)), rng.uniform(0, 2 * np.pi, (8, 1))], axis=1)
        waves = np.concatenate([waves, np.full((8, 1), rough / 2)], axis=1)
        spikes = np.zeros((0, 5))
        if kind == "spiculated":
            count = int(rng.integers(8, 34))
            ways = rng.normal(size=(count, 3))
            ways /= np.linalg.norm(ways, axis=1, keepdims=True)
            spikes = np.concatenate(
                [ways, rng.uniform(0.1, 0.55, (count, 1)), np.exp(rng.uniform(2.2, 4.6, (count, 1)))], axis=1
            )
        shrink = 0.82 if kind == "spiculated" else 0.95
        dense = float(rng.uniform(-60, 110))
        glass = float(rng.uniform(-760, -420))
        core = (float(rng.uniform(0.35, 0.75)), hounsfield(dense)) if kind == "part-solid" else None
        return cls(
            kind,
            at,
            diameter / 2 * shrink,
            (turn / stretch) @ turn.T,
            waves,
            spikes,
            float(rng.uniform(0.25, 0.7)) if kind in {"solid", "spiculated"} else float(rng.uniform(0.5, 1.3)),
            hounsfield(glass if kind in {"ground glass", "part-solid"} else dense),
            core,
        )

    def fill(self, places: Places) -> tuple[FloatImage, FloatImage]:
        """Return the share of each voxel that it fills and of that its core fills, float32 (Z, Y, X)."""
        z, y, x = places
        reach = self.radius * (1.9 if len(self.spikes) else 1.5) + 3.0
        shape = (z.size, y.size, x.size)
        share, core = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        near = tuple(
            np.flatnonzero(np.abs(line.ravel() - middle) < reach + pad)
            for line, middle, pad in zip(places, self.at, (THICK_MM / 2, 0, 0), strict=True)
        )
        if any(len(index) == 0 for index in near):
            return share, core
        box = np.ix_(*near)
        offsets = ((np.arange(SUBSLICES) + 0.5) / SUBSLICES - 0.5) * THICK_MM
        found, cored = np.zeros(share[box].shape), np.zeros(share[box].shape)
        for offset in offsets:
            grids = np.meshgrid(
                z.ravel()[near[0]] + offset - self.at[0],
                y.ravel()[near[1]] - self.at[1],
                x.ravel()[near[2]] - self.at[2],
                indexing="ij",
            )
            points = np.stack(grids, axis=-1) @ self.axes
            distance = np.linalg.norm(points, axis=-1)
            way = points / np.maximum(distance, 1e-6)[..., None]
            bumps = (np.cos(way @ self.waves[:, :3].T + self.waves[:, 3]) * self.waves[:, 4]).sum(axis=-1)
            round_edge = self.radius * (1.0 + bumps)
            edge = round_edge.copy()
            for spike in self.spikes:
                edge += self.radius * spike[3] * np.exp(spike[4] * (way @ spike[:3] - 1.0))
            found += _inside(edge - distance, self.edge_mm)
            if self.core is not None:
                cored += _inside(round_edge * self.core[0] - distance, self.edge_mm)
        share[box], core[box] = found / SUBSLICES, cored / SUBSLICES
        return share, core

    def paint(self, pixels: FloatImage, places: Places, rng: np.random.Generator) -> FloatImage:
        """Put it into `pixels` (Z, Y, X); return the share of each voxel that it fills."""
        share, core = self.fill(places)
        if not share.any():
            return share
        level = self.level + (0.0 if self.core is None else core * (self.core[1] - self.level))
        add_tissue(pixels, share, level, rng)
        return share


def add_tissue(pixels: FloatImage, share: FloatImage, level: FloatImage | float, rng: np.random.Generator) -> None:
    """Fill a share of each voxel with what has a level (0..1); what is denser already, as a vessel is, stays."""
    grain = rng.normal(scale=rng.uniform(0.004, 0.03), size=pixels.shape).astype(np.float32)
    pixels += share * np.maximum(level + grain - pixels, 0.0)


def vessel(places: Places, at: tuple[float, float, float], rng: np.random.Generator) -> FloatImage:
    """Return the share of each voxel that a bent tube through `at` fills, with a branch at times."""
    share = _tube(places, at, rng, float(np.exp(rng.uniform(np.log(1.0), np.log(5.5)))))
    if rng.random() < 0.5:
        share = np.maximum(share, _tube(places, at, rng, float(rng.uniform(0.8, 3.0))))
    return share


def _tube(places: Places, at: tuple[float, float, float], rng: np.random.Generator, radius: float) -> FloatImage:
    """Return the share that one tube fills: radius in mm, longer than the patch or ending at `at`."""
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    bend = np.cross(way, rng.normal(size=3)) * rng.uniform(-0.012, 0.012)
    ends = rng.random() < 0.35
    taper = rng.uniform(0.0, 0.012)

    def inside(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        p = np.stack(np.broadcast_arrays(z - at[0], y - at[1], x - at[2]), axis=-1)
        along = p @ way
        axis = along[..., None] * way + (along**2)[..., None] * bend
        across = np.linalg.norm(p - axis, axis=-1)
        width = radius * np.clip(1.0 - taper * along, 0.3, 1.3)
        result = _inside(width - across, 0.45)
        return result * _inside(along + 3.0 * radius, 1.0) if ends else result

    return _averaged(inside, places)


def scar(places: Places, at: tuple[float, float, float], rng: np.random.Generator) -> FloatImage:
    """Return the share of each voxel that a band of scar fills: a bent plate, thin and wide."""
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    half, wide = rng.uniform(0.5, 1.8), rng.uniform(9.0, 28.0)
    bend = rng.uniform(-0.012, 0.012)

    def inside(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        p = np.stack(np.broadcast_arrays(z - at[0], y - at[1], x - at[2]), axis=-1)
        off = p @ normal
        flat = np.linalg.norm(p - off[..., None] * normal, axis=-1)
        return _inside(half - np.abs(off + bend * flat**2), 0.4) * _inside(wide - flat, 1.5)

    return _averaged(inside, places)


def _averaged(inside: object, places: Places) -> FloatImage:
    """Return a function of places, averaged over the thickness of a slice."""
    z, y, x = places
    offsets = ((np.arange(2) + 0.5) / 2 - 0.5) * THICK_MM
    return np.mean([inside(z + offset, y, x) for offset in offsets], axis=0).astype(np.float32)  # type: ignore[operator]


def _inside(depth: np.ndarray, soft: float) -> np.ndarray:
    """Return 0..1 for a depth under a surface in mm: 0.5 at it, blurred by `soft` mm."""
    return 1.0 / (1.0 + np.exp(-np.clip(depth / (soft * 0.6), -30, 30)))
