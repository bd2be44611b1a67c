"""Pixels of a segmentation out of contours. Plain numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from radnode.report.places import Point

Mask = npt.NDArray[np.bool_]


def fill(contours: Iterable[Iterable[Point]], rows: int, columns: int) -> Mask:
    """Return which pixels of an image lie within closed contours, shape (rows, columns).

    A contour is its (column, row) points, the first one not repeated; (0, 0) is the top left corner of the first pixel
    (PS3.3 C.18.6.1.1), whose centre lies at (0.5, 0.5). A pixel is within where its centre is, by the even-odd rule.
    """
    edges = [_edges(np.asarray(list(points), dtype=np.float64)) for points in contours]
    starts, ends = np.concatenate([each[0] for each in edges]), np.concatenate([each[1] for each in edges])
    mask = np.zeros((rows, columns), dtype=np.bool_)
    top, bottom = math.floor(starts[:, 1].min()), math.ceil(starts[:, 1].max())
    for row in range(max(top, 0), min(bottom, rows)):
        centre = row + 0.5
        across = (starts[:, 1] <= centre) != (ends[:, 1] <= centre)  # an even number of edges
        (x0, y0), (x1, y1) = starts[across].T, ends[across].T
        at = np.sort(x0 + (centre - y0) * (x1 - x0) / (y1 - y0))
        limits = np.clip(np.ceil(at - 0.5), 0, columns).astype(int)  # the first centre that is not left of an edge
        for first, last in limits.reshape(-1, 2):
            mask[row, first:last] = True
    return mask


def _edges(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where the edges of a polygon start and end, each of shape (N, 2)."""
    return points, np.roll(points, -1, axis=0)
