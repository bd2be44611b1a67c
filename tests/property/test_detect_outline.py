"""Outlines hold exactly the cells that are above the level, whatever their shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from radnode.detect.outline import area, outlines
from radnode.report.masks import fill

VALUES = st.sampled_from([np.float32(value) for value in (0, 0.1, 0.4, 0.6, 0.9)])
MAPS = array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: arrays(np.float32, shape, elements=VALUES)
)


@given(MAPS)
def test_outlines_hold_the_centres_of_the_cells_above_the_level_and_no_others(values: np.ndarray) -> None:
    found = outlines(values, 0.5)
    inside = values >= 0.5
    assert bool(found) == inside.any()
    if found:
        np.testing.assert_array_equal(fill(found, *values.shape), inside)
        assert area(found[0]) == max(area(points) for points in found) > 0


@given(MAPS, st.integers(0, 3))
def test_outlines_turn_with_the_map(values: np.ndarray, quarters: int) -> None:
    turned = outlines(np.rot90(values, quarters), 0.5)
    assert sorted(map(area, turned)) == pytest.approx(sorted(map(area, outlines(values, 0.5))))


def test_outline_lies_where_a_line_between_two_cells_is_at_the_level() -> None:
    [points] = outlines(np.array([[0.8, 0.4]], dtype=np.float32), 0.6)
    assert (min(x for x, _ in points), max(x for x, _ in points)) == pytest.approx((0.25, 1.0))
    assert (min(y for _, y in points), max(y for _, y in points)) == pytest.approx((0.25, 0.75))


def test_disc_has_the_area_and_the_width_of_a_disc() -> None:
    y, x = np.mgrid[:40, :40] - 19.5
    disc = np.clip(12.3 - np.hypot(x, y) + 0.5, 0, 1).astype(np.float32)
    [points] = outlines(disc, 0.5)
    columns = [column for column, _ in points]
    assert max(columns) - min(columns) == pytest.approx(24.6, abs=0.2)
    assert area(points) == pytest.approx(np.pi * 12.3**2, rel=0.01)


def test_ring_has_a_hole_that_goes_the_other_way() -> None:
    ring = np.ones((7, 7), dtype=np.float32)
    ring[2:5, 2:5] = 0
    outer, inner = outlines(ring, 0.5)
    assert area(outer) > 0 > area(inner)
