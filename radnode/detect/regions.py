"""Boxes out of a heat map. Plain numpy; training measures with the same function that serving uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from radnode.detect.manifest import RegionSpec

HeatMap = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeatBox:
    """One region of a heat map. Edges are shares of the map (0..1) from its top left corner.

    `share` is the region's highest cell divided by the highest cell of the map (0..1).
    """

    left: float
    top: float
    right: float
    bottom: float
    share: float


def boxes(heat: HeatMap, spec: RegionSpec) -> list[HeatBox]:
    """Return the boxes of a heat map of probabilities, shape (rows, columns), hottest first.

    See `RegionSpec` for the rule.
    """
    highest = float(heat.max())
    if highest < spec.min_peak:
        return []
    mask = heat >= max(spec.share_of_peak * highest, spec.floor)
    rows, columns = heat.shape
    found = []
    for cells in _components(mask):
        hottest = max(float(heat[cell]) for cell in cells)
        if hottest >= spec.min_peak:
            top, left = min(row for row, _ in cells), min(column for _, column in cells)
            bottom, right = max(row for row, _ in cells) + 1, max(column for _, column in cells) + 1
            found.append(HeatBox(left / columns, top / rows, right / columns, bottom / rows, hottest / highest))
    found.sort(key=lambda box: (-box.share, box.top, box.left))
    return found[: spec.max_regions]


def peak(heat: HeatMap) -> tuple[float, float]:
    """Return (x, y) of the centre of the highest cell, as shares of the map (0..1)."""
    row, column = divmod(int(np.argmax(heat)), heat.shape[1])
    return (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]


def _components(mask: npt.NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the (row, column) cells of each 8-connected component, in reading order of their first cell."""
    waiting = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    components = []
    for start in sorted(waiting):
        if start not in waiting:
            continue
        waiting.remove(start)
        cells, queue = [start], [start]
        while queue:
            row, column = queue.pop()
            around = {(row + dr, column + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & waiting
            waiting -= around
            cells.extend(around)
            queue.extend(around)
        components.append(cells)
    return components
