"""The pictures of the card. None shows the patient of the training data, whose images must not be copied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Polygon

from ct.judge import Found, Slab
from ct.lidc import Reading
from ct.scan import Scan
from radnode.model import Finding

METADATA = {"Software": None, "Creation Time": None}  # the same figures give the same bytes
MARGIN = 45  # pixels of the source around a nodule


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata=METADATA)
    plt.close(figure)


def froc(judged: Sequence[Sequence[Found]], nodules: int, cut: float, path: Path) -> None:
    """Sensitivity against false findings per slab, on synthetic nodules."""
    every = sorted((found for slab in judged for found in slab), key=lambda found: -found.score)
    hits = np.cumsum([found.truth is not None for found in every]) / nodules
    false = np.cumsum([found.truth is None for found in every]) / len(judged)
    at = sum(found.score >= cut for found in every) - 1
    figure, axes = plt.subplots(figsize=(5, 4))
    axes.step([0, *false], [0, *hits], where="post")
    if at >= 0:
        axes.plot(false[at], hits[at], "o", label=f"cut {cut:.2f}")
        axes.legend(loc="lower right")
    axes.set(xlabel="false findings per slab", ylabel="sensitivity", ylim=(0, 1.02), xlim=(-0.05, None))
    axes.set_title("Synthetic nodules, slices never trained on")
    _save(figure, path)


def diameters(judged: Sequence[Sequence[Found]], slabs: Sequence[Slab], cut: float, path: Path) -> None:
    """Measured against true longest diameter of the synthetic nodules that were found."""
    figure, axes = plt.subplots(figsize=(4.6, 4.4))
    for kind in sorted({truth.kind for slab in slabs for truth in slab.truths}):
        pairs = [
            (slab.truths[found.truth].diameter, found.diameter)
            for slab, each in zip(slabs, judged, strict=True)
            for found in each
            if found.truth is not None and found.score >= cut and slab.truths[found.truth].kind == kind
        ]
        if pairs:
            axes.plot(*zip(*pairs, strict=True), "o", label=kind, alpha=0.8)
    line = np.array([0.0, 36.0])
    axes.plot(line, line, "k:", linewidth=1)
    axes.fill_between(line, 0.9 * line, 1.1 * line, color="k", alpha=0.08, label="within 10 %")
    axes.set(xlabel="true longest diameter (mm)", ylabel="measured (mm)", xlim=(0, 36), ylim=(0, 36))
    axes.legend(loc="upper left", fontsize=8)
    _save(figure, path)


def examples(scan: Scan, readings: Sequence[Reading], finding: Finding, path: Path) -> None:
    """Slices through a nodule: the readers' outlines green, the detector's red."""
    numbers = sorted({region.frame or 1 for region in finding.outlines})
    shown = [numbers[index] for index in np.linspace(0, len(numbers) - 1, 6).round().astype(int)]
    points = np.array(finding.region.points if finding.region else [(0.0, 0.0)])
    left, top = points.min(axis=0) - MARGIN
    right, bottom = points.max(axis=0) + MARGIN
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 7.4))
    for number, place in zip(shown, axes.flat, strict=True):
        place.imshow(
            scan.volume.pixels[number - 1],
            cmap="gray",
            vmin=0,
            vmax=0.95,
            extent=(0, 512, 512, 0),
            interpolation="bilinear",
        )
        for reading in readings:
            for outline in reading.outlines.get(scan.uids[number - 1], ()):
                place.add_patch(Polygon(outline, closed=True, fill=False, edgecolor="lime", linewidth=1))
        for region in finding.outlines:
            if region.frame == number:
                place.add_patch(Polygon(region.points, closed=True, fill=False, edgecolor="red", linewidth=1.6))
        place.set(xlim=(left, right), ylim=(bottom, top))
        place.set_title(f"slice {number}", fontsize=9)
        place.axis("off")
    _save(figure, path)
