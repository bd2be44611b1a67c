"""What ct-nodule is trained on and judged by: slices kept apart, nodules of the size they claim, cuts and matches."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import films

from radnode.detect.outline import outlines
from radnode.model import Code, Finding, Region

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
from ct import judge, lidc, sample, shapes  # noqa: E402 (the training is a folder of scripts, not a package)
from ct.grid import SIDE, lungs  # noqa: E402
from ct.net import REACH, NoduleNet  # noqa: E402
from ct.program import Served  # noqa: E402
from ct.scan import Scan, read_scan  # noqa: E402

sys.path.remove(SCRIPTS)

UIDS = [f"1.2.{number}" for number in range(5)]


@pytest.fixture(scope="module")
def scan() -> Scan:
    """The bundled slab of LIDC-IDRI-0001: never trained on, here a body of plausible numbers."""
    return read_scan(films.CT[0].parent)


def places(half: int = 40) -> shapes.Places:
    line = np.arange(-half, half + 1, dtype=float)
    return np.arange(-30, 31, 3.0)[:, None, None], line[None, :, None], line[None, None, :]


def test_no_patch_reaches_into_the_slices_of_validation() -> None:
    allowed = np.flatnonzero(sample.allowed_slices(99))
    reach = REACH + 1  # neighbours are at most one slice apart, after a shift of half a slice
    seen = {number + step for number in allowed.tolist() for step in range(-reach, reach + 1)}
    assert not seen & set(sample.VALIDATION)
    assert len(allowed) > 50
    assert sample.OWN_NODULE[0] in sample.VALIDATION


@pytest.mark.parametrize("diameter", [6.0, 12.0, 25.0])
def test_synthetic_nodules_are_as_long_as_they_say(diameter: float) -> None:
    rng = np.random.default_rng(5)
    measured = []
    for _ in range(12):
        share, _ = shapes.Nodule.draw(rng, (0.0, 0.0, 0.0), diameter).fill(places())
        assert share.min() >= 0.0
        assert share.max() <= 1.0
        largest = max(share, key=lambda each: (each >= 0.5).sum())
        found = outlines(largest, 0.5)
        measured.append(judge.longest(found[0]) if found else 0.0)
    assert np.median(measured) == pytest.approx(diameter, rel=0.2)


def test_what_is_denser_already_stays() -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((3, 4, 4), 0.9, dtype=np.float32)
    shapes.add_tissue(pixels, np.ones_like(pixels), 0.5, rng)
    assert pixels == pytest.approx(0.9)
    shapes.add_tissue(pixels, np.full_like(pixels, 0.5), 1.1, rng)
    assert pixels.mean() == pytest.approx(1.0, abs=0.02)


def test_patches_are_the_same_by_seed_and_hold_what_they_claim(scan: Scan) -> None:
    seeds = sample.Seeds.of(scan, np.ones(len(scan.slices), dtype=bool))
    one, other = ([sample.draw(scan, seeds, np.random.default_rng(3)) for _ in range(2)] for _ in range(2))
    for patch, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(patch.pixels, again.pixels)
        assert patch.pixels.shape == (9, 96, 96)
        assert 0.0 <= patch.pixels.min() <= patch.pixels.max() <= 1.0
    rng = np.random.default_rng(4)
    some = [sample.draw(scan, seeds, rng).target.max() > 0.5 for _ in range(30)]
    assert 0.2 < np.mean(some) < 0.8


def test_lungs_hold_the_readers_nodule_and_leave_the_heart_out(scan: Scan) -> None:
    spacing = scan.volume.spacing
    [[reading, *_]] = lidc.read_nodules(films.CT[0].parent / "readers.xml", spacing)
    x, y = scan.to_grid(*reading.middle())
    assert scan.lung[7, round(y), round(x)]
    assert not scan.lung[7, SIDE // 2 - 40, SIDE // 2]
    assert 0.1 < scan.lung.mean() < 0.4


def test_air_around_a_body_is_no_lung() -> None:
    slices = torch.zeros(1, 1, 64, 64)
    slices[0, 0, 10:50, 10:50] = 0.8
    slices[0, 0, 20:40, 16:26] = 0.05
    mask = lungs(slices)[0, 0]
    assert mask[30, 20] == 1
    assert mask[5].sum() == mask[:, 60].sum() == 0


def test_score_is_carried_through_one_region_and_not_into_another() -> None:
    """Two rods of one share: the thick part of the first gives the whole of it its score."""

    class Painted(Served):
        def logits(self, grid: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            return torch.where(grid[:, 0] == 0.125, 10.0, -10.0)

    grid = torch.full((5, 1, SIDE, SIDE), 0.8)
    grid[:, :, 100:250, 60:300] = 0.1
    grid[1:4, 0, 150:170, 100:120] = 0.125
    grid[2, 0, 158:162, 120:140] = 0.125
    grid[2, 0, 200:202, 200:230] = 0.125
    heat = Painted(NoduleNet()).heat(grid, torch.tensor([[3.0, 1.0, 1.0]]))[:, 0]
    assert heat[2, 160, 110] == pytest.approx(1.0, abs=1e-3)
    assert heat[2, 160, 135] == pytest.approx(1.0, abs=1e-3)
    assert heat[2, 201, 215] < 0.2
    assert heat[2, 220, 250] == 0.0


def found(score: float, truth: int | None) -> judge.Found:
    return judge.Found(score, 10.0, truth)


def test_cut_leaves_half_a_false_finding_a_slab() -> None:
    slabs = [[found(0.9, 0), found(0.7 - 0.1 * number, None)] for number in range(4)]
    cut = judge.choose_cut(slabs)
    assert sum(each.truth is None and each.score >= cut for slab in slabs for each in slab) == 2
    assert judge.choose_cut([[found(0.4, 0)]] * 4) == 0.25


def square(left: float, top: float, side: float) -> tuple[tuple[float, float], ...]:
    return ((left, top), (left + side, top), (left + side, top + side), (left, top + side))


def test_findings_are_matched_with_what_readers_drew() -> None:
    nodule = Code("27925004", "SCT", "Nodule")
    readings = [lidc.Reading({UIDS[2]: (square(10, 10, 20),)}), lidc.Reading({UIDS[2]: (square(10, 10, 30),)})]
    on = Finding(nodule, 0.9, region=Region("contour", square(12, 12, 16), 3), diameter_mm=20.0)
    other_slice = Finding(nodule, 0.8, region=Region("contour", square(12, 12, 16), 1), diameter_mm=20.0)
    [match], false = lidc.match([readings], [other_slice, on], UIDS, (0.5, 0.5))
    assert false == [other_slice]
    assert match.finding is on
    assert match.within == 2
    assert match.overlap == pytest.approx((256 / 400 + 256 / 900) / 2)
    assert match.on_slice == match.readers
    assert match.ratio_on_slice == pytest.approx(20.0 / np.mean(match.readers))
    assert match.readers == pytest.approx((20 * 2**0.5 / 2, 30 * 2**0.5 / 2))
    [missed], false = lidc.match([readings], [other_slice], UIDS, (0.5, 0.5))
    assert (missed.finding, missed.within, len(false)) == (None, 0, 1)


def test_readers_of_one_nodule_are_brought_together(scan: Scan) -> None:
    [readings] = lidc.read_nodules(films.CT[0].parent / "readers.xml", scan.volume.spacing)
    assert len(readings) == 4
    assert [reading.diameter(scan.volume.spacing) for reading in readings] == pytest.approx(
        [32.2, 33.2, 32.0, 33.7], abs=0.1
    )
