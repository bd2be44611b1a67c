"""Properties of the way from source pixels to the network's square and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from radnode.detect.manifest import InputSpec, RegionSpec
from radnode.detect.pixels import Geometry, PixelImage, prepare
from radnode.detect.regions import boxes, peak

SIZE = 256
SPEC = InputSpec(size=64, percentiles=(1.0, 99.0), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
REGION = RegionSpec(kind="box", share_of_peak=0.4, floor=0.05, min_peak=0.05, max_regions=10)
lengths = st.integers(1, 6000)
shares = st.floats(0.0, 1.0)
heat_maps = st.lists(st.floats(0.0, 1.0, width=32), min_size=64, max_size=64).map(
    lambda values: np.array(values, dtype=np.float32).reshape(8, 8)
)


@given(lengths, lengths, shares, shares)
def test_a_point_comes_back_to_where_it_was(rows: int, columns: int, across: float, down: float) -> None:
    geometry = Geometry.fit(rows, columns, SIZE)
    x, y = geometry.to_network(across * columns, down * rows)
    assert -1e-6 <= x <= SIZE + 1e-6
    assert -1e-6 <= y <= SIZE + 1e-6
    column, row = geometry.to_source(x, y)
    assert abs(column - across * columns) < 1e-6 * columns
    assert abs(row - down * rows) < 1e-6 * rows


@given(lengths, lengths, st.floats(-10, SIZE + 10), st.floats(-10, SIZE + 10))
def test_no_point_of_the_square_falls_outside_the_image(rows: int, columns: int, x: float, y: float) -> None:
    column, row = Geometry.fit(rows, columns, SIZE).to_source(x, y)
    assert 0 <= column <= columns
    assert 0 <= row <= rows


@given(lengths, lengths)
def test_the_image_fills_the_longer_side_and_is_centred(rows: int, columns: int) -> None:
    geometry = Geometry.fit(rows, columns, SIZE)
    assert max(geometry.scaled_rows, geometry.scaled_columns) == SIZE
    assert abs(SIZE - geometry.scaled_rows - 2 * geometry.top) <= 1
    assert abs(SIZE - geometry.scaled_columns - 2 * geometry.left) <= 1


@given(st.integers(40, 300), st.integers(40, 300), st.floats(0.25, 8.0), st.floats(-500.0, 500.0), st.integers(0, 99))
def test_brightness_and_contrast_of_the_source_do_not_matter(
    rows: int, columns: int, gain: float, offset: float, seed: int
) -> None:
    pixels = np.random.default_rng(seed).uniform(0, 1000, (rows, columns)).astype(np.float32)
    first, _ = prepare(PixelImage(pixels), SPEC)
    second, _ = prepare(PixelImage((pixels * np.float32(gain) + np.float32(offset)).astype(np.float32)), SPEC)
    assert first.shape == (3, 64, 64)
    np.testing.assert_allclose(first, second, atol=2e-2)


@given(st.integers(128, 700), st.integers(128, 700), shares, shares)
def test_reducing_moves_nothing(rows: int, columns: int, across: float, down: float) -> None:
    side = min(rows, columns) // 2
    top, left = round(down * (rows - side)), round(across * (columns - side))
    pixels = np.zeros((rows, columns), dtype=np.float32)
    pixels[top : top + side, left : left + side] = 1.0
    tensor, geometry = prepare(PixelImage(pixels), SPEC)
    weights = tensor[0] - tensor[0].min()
    y, x = (np.indices(weights.shape) + 0.5).reshape(2, -1) @ weights.ravel() / weights.sum()
    column, row = geometry.to_source(float(x), float(y))
    pixel = max(rows, columns) / SPEC.size
    assert abs(column - (left + side / 2)) < 0.5 * pixel
    assert abs(row - (top + side / 2)) < 0.5 * pixel


@given(heat_maps)
def test_boxes_cover_exactly_the_cells_above_the_cut(heat: np.ndarray) -> None:
    found = boxes(heat, REGION)
    cut = max(0.4 * float(heat.max()), 0.05)
    if float(heat.max()) < 0.05:
        assert found == []
        return
    covered = np.zeros((8, 8), dtype=bool)
    for box in found:
        rows, columns = (
            slice(round(box.top * 8), round(box.bottom * 8)),
            slice(round(box.left * 8), round(box.right * 8)),
        )
        covered[rows, columns] = True
        assert 0.4 <= box.share <= 1.0 + 1e-6
    if len(found) < REGION.max_regions:
        assert covered[heat >= cut].all()
    assert found[0].share == 1.0
    assert [box.share for box in found] == sorted((box.share for box in found), reverse=True)
    x, y = peak(heat)
    assert any(box.left <= x <= box.right and box.top <= y <= box.bottom for box in found)
