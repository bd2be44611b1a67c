"""Lesions of a heat map of slices: the same components as a plain flood fill finds, in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from radnode.detect.lesions import lesions
from radnode.detect.manifest import RegionSpec

SPEC = RegionSpec(kind="box", share_of_peak=0.4, floor=0.1, min_peak=0.3, max_regions=50)
Cell = tuple[int, int, int]


def components(mask: np.ndarray) -> list[set[Cell]]:
    """Flood fill over 26 neighbours."""
    waiting = {(int(z), int(y), int(x)) for z, y, x in np.argwhere(mask)}
    found = []
    while waiting:
        queue = [waiting.pop()]
        cells = set(queue)
        while queue:
            z, y, x = queue.pop()
            around = {(z + a, y + b, x + c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)} & waiting
            waiting -= around
            cells |= around
            queue.extend(around)
        found.append(cells)
    return found


HEAT = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([np.float32(v) for v in (0, 0.05, 0.2, 0.5, 0.9)]))
)


@given(HEAT)
def test_lesions_are_the_components_each_on_its_largest_slice(heat: np.ndarray) -> None:
    highest = float(heat.max())
    found = lesions(heat, SPEC)
    if highest < SPEC.min_peak:
        assert found == []
        return
    expected = [
        cells for cells in components(heat >= max(0.4 * highest, 0.1)) if max(heat[cell] for cell in cells) >= 0.3
    ]
    assert len(found) == min(len(expected), SPEC.max_regions)
    assert [item.box.share for item in found] == sorted((item.box.share for item in found), reverse=True)
    _, rows, columns = heat.shape
    boxes = set()
    for cells in expected:
        counts = {z: sum(cell[0] == z for cell in cells) for z, _, _ in cells}
        most = max(counts.values())
        largest = [z for z, count in counts.items() if count == most]
        peaks = {z: max(heat[cell] for cell in cells if cell[0] == z) for z in largest}
        chosen = min(largest, key=lambda z: (-peaks[z], z))
        flat = [(y, x) for z, y, x in cells if z == chosen]
        top, left = min(y for y, _ in flat), min(x for _, x in flat)
        bottom, right = max(y for y, _ in flat) + 1, max(x for _, x in flat) + 1
        boxes.add((chosen, left / columns, top / rows, right / columns, bottom / rows))
    if len(expected) <= SPEC.max_regions:
        assert {(it.slice, it.box.left, it.box.top, it.box.right, it.box.bottom) for it in found} == boxes


def test_long_snake_through_all_slices_is_one_lesion() -> None:
    heat = np.zeros((60, 16, 16), dtype=np.float32)
    for number in range(60):
        heat[number, abs(number % 30 - 15), abs((number + 7) % 22 - 11)] = 0.9
    [lesion] = lesions(heat, SPEC)
    assert lesion.box.share == pytest.approx(1.0)


def test_heat_everywhere_is_one_lesion_on_the_first_slice() -> None:
    [lesion] = lesions(np.full((40, 16, 16), 0.7, dtype=np.float32), SPEC)
    assert (lesion.slice, lesion.box.left, lesion.box.bottom) == (0, 0.0, 1.0)
