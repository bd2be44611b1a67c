"""The outlines of what is above a level in a map, between the cells. Plain numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from radnode.detect.regions import HeatMap

Point = tuple[float, float]
_Edge = tuple[tuple[int, int], tuple[int, int]]


def outlines(values: HeatMap, level: float) -> list[tuple[Point, ...]]:
    """Return the outlines around the cells that are at least `level`, the largest first; none where no cell is.

    `values` has the shape (rows, columns), `level` is above 0, and around the map all is 0. Points are (x, y) in cells
    from the top left corner of the map, the last one not repeated: the centre of a cell is half a cell from its edges,
    and an outline passes between two cells where a straight line between their values is at `level`. It goes
    clockwise, around a hole the other way. Cells that touch by a corner are together.
    """
    padded = np.pad(values, 1)
    inside = padded >= level
    follows: dict[_Edge, _Edge] = {}
    blocks = inside[:-1, :-1].astype(np.int8) + inside[:-1, 1:] + inside[1:, 1:] + inside[1:, :-1]
    for row, column in np.argwhere((blocks > 0) & (blocks < 4)).tolist():
        corners = ((row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column))
        crossings = [
            (inside[one], (min(one, other), max(one, other)))
            for one, other in pairwise((*corners, corners[0]))
            if inside[one] != inside[other]
        ]
        for index, (leaves, edge) in enumerate(crossings):
            if leaves:  # what comes next, clockwise, enters again
                follows[edge] = crossings[(index + 1) % len(crossings)][1]
    loops = []
    while follows:
        edge = first = next(iter(follows))
        loop = []
        while edge in follows:
            loop.append(_crossing(padded, edge, level))
            edge = follows.pop(edge)
        if edge == first:
            loops.append(tuple(loop))
    return sorted(loops, key=area, reverse=True)


def area(points: tuple[Point, ...]) -> float:
    """Return the area of a polygon, above 0 where its points go clockwise (x to the right, y down)."""
    following = (*points[1:], points[0])
    return sum(x * other_y - other_x * y for (x, y), (other_x, other_y) in zip(points, following, strict=True)) / 2


def _crossing(padded: HeatMap, edge: _Edge, level: float) -> Point:
    """Return where the level lies between the centres of two cells of the padded map."""
    (row, column), (other_row, other_column) = edge
    here, there = float(padded[row, column]), float(padded[other_row, other_column])
    share = (level - here) / (there - here)
    return column + share * (other_column - column) - 0.5, row + share * (other_row - row) - 0.5
