"""Lesions out of the heat map of a volume. Plain numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radnode.detect.outline import Point, outlines
from radnode.detect.regions import HeatBox, HeatMap

if TYPE_CHECKING:
    from radnode.detect.manifest import RegionSpec

_Index = npt.NDArray[np.int64]

# Half of the 26 neighbours of a cell; the other half are their mirror images.
_FORWARD = [step for step in product((0, 1), (-1, 0, 1), (-1, 0, 1)) if step > (0, 0, 0)]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One region of a heat map of slices: its box on the slice where it has most cells (from 0).

    Of the region kind "contour", the region is what is at least half as hot as its own highest cell: `contour` is its
    largest outline on that slice, (x, y) in shares of the map (0..1), `outlines` are all that it has, with their slice,
    and `cells` is how many cells it has in all slices.
    """

    slice: int
    box: HeatBox
    contour: tuple[Point, ...] = ()
    outlines: tuple[tuple[int, tuple[Point, ...]], ...] = ()
    cells: int = 0


def lesions(heat: HeatMap, spec: RegionSpec) -> list[Lesion]:
    """Return the lesions of a heat map of probabilities, shape (slices, rows, columns), hottest first.

    `RegionSpec` has the rule; cells of one lesion touch within a slice or between neighbours (26 neighbours).
    """
    highest = float(heat.max())
    if highest < spec.min_peak:
        return []
    cells = np.argwhere(heat >= max(spec.share_of_peak * highest, spec.floor))  # in reading order, shape (N, 3)
    values = heat[tuple(cells.T)]
    labels = _labels(cells, heat.shape)
    hottest = np.zeros(len(cells), dtype=np.float32)
    np.maximum.at(hottest, labels, values)
    roots = [int(root) for root in np.unique(labels) if hottest[root] >= spec.min_peak]
    roots.sort(key=lambda root: (-hottest[root], root))
    make = _outlined if spec.kind == "contour" else _boxed
    return [
        make(cells[labels == root], values[labels == root], heat.shape, highest) for root in roots[: spec.max_regions]
    ]


def _outlined(cells: _Index, values: HeatMap, shape: tuple[int, ...], highest: float) -> Lesion:
    """Return one lesion with its outlines, given its cells (slice, row, column) and their heat."""
    _, rows, columns = shape
    level = float(values.max()) / 2
    kept = values >= level
    found = []
    for number in np.unique(cells[kept, 0]).tolist():
        here = cells[:, 0] == number
        top, left = (int(value) for value in cells[here, 1:].min(axis=0))
        bottom, right = (int(value) + 1 for value in cells[here, 1:].max(axis=0))
        crop = np.zeros((bottom - top, right - left), dtype=np.float32)
        crop[cells[here, 1] - top, cells[here, 2] - left] = values[here]
        for points in outlines(crop, level):
            found.append((number, tuple(((left + x) / columns, (top + y) / rows) for x, y in points)))
    lesion = _boxed(cells[kept], values[kept], shape, highest)
    contour = next(points for number, points in found if number == lesion.slice)
    return replace(lesion, contour=contour, outlines=tuple(found), cells=int(kept.sum()))


def _boxed(cells: _Index, values: HeatMap, shape: tuple[int, ...], highest: float) -> Lesion:
    """Return the box of one lesion, given its cells (slice, row, column) and their heat."""
    _, rows, columns = shape
    numbers, counts = np.unique(cells[:, 0], return_counts=True)
    peaks = np.asarray([values[cells[:, 0] == number].max() for number in numbers])
    chosen = int(numbers[np.lexsort((numbers, -peaks, -counts))[0]])  # most cells, then hottest, then first
    top, left = (int(value) for value in cells[cells[:, 0] == chosen, 1:].min(axis=0))
    bottom, right = (int(value) + 1 for value in cells[cells[:, 0] == chosen, 1:].max(axis=0))
    share = float(values.max()) / highest
    return Lesion(chosen, HeatBox(left / columns, top / rows, right / columns, bottom / rows, share))


def _labels(cells: _Index, shape: tuple[int, ...]) -> _Index:
    """Return for each cell the number of the first cell of its component, shape (N,).

    Every pair of neighbours makes the higher of two roots point to the lower one, until no pair differs.
    """
    numbers = np.full(tuple(length + 2 for length in shape), -1, dtype=np.int64)  # with a border of nothing
    numbers[tuple(cells.T + 1)] = np.arange(len(cells))
    pairs = []
    for step in _FORWARD:
        beside = numbers[tuple(cells.T + 1 + np.asarray(step)[:, None])]
        pairs.append(np.stack([np.flatnonzero(beside >= 0), beside[beside >= 0]]))
    one, other = np.concatenate(pairs, axis=1)
    labels = np.arange(len(cells))
    while True:
        low = np.minimum(labels[one], labels[other])
        before = labels.copy()
        np.minimum.at(labels, before[one], low)
        np.minimum.at(labels, before[other], low)
        labels = labels[labels]
        if np.array_equal(labels, before):
            return labels
