"""Which pixels lie within contours."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from radnode.report.masks import fill

SQUARE = [(1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (1.0, 3.0)]
coordinates = st.floats(-3.0, 12.0, width=16)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8)


def test_contour_along_pixel_edges_holds_just_those_pixels() -> None:
    mask = fill([SQUARE], 5, 6)
    assert mask.shape == (5, 6)
    assert mask[1:3, 1:4].all()
    assert mask.sum() == 6


def test_pixel_is_within_where_its_centre_is() -> None:
    assert fill([[(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6)]], 2, 2).tolist() == [[True, False], [False, False]]
    assert not fill([[(0.6, 0.6), (1.4, 0.6), (1.4, 1.4), (0.6, 1.4)]], 2, 2).any()


def test_contour_within_another_is_a_hole_and_the_way_round_does_not_matter() -> None:
    hole = [(2.0, 1.0), (3.0, 1.0), (3.0, 2.0), (2.0, 2.0)]
    for contours in ([SQUARE, hole], [SQUARE[::-1], hole], [hole, SQUARE]):
        mask = fill(contours, 5, 6)
        assert not mask[1, 2]
        assert mask.sum() == 5


@given(st.lists(polygons, min_size=1, max_size=3))
def test_mask_is_what_counting_the_edges_to_the_left_of_each_centre_gives(contours: list) -> None:
    mask = fill(contours, 9, 9)
    for row, column in np.ndindex(9, 9):
        edges = 0
        for points in contours:
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 <= row + 0.5) != (y1 <= row + 0.5):
                    edges += x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= column + 0.5
        assert mask[row, column] == (edges % 2 == 1)
