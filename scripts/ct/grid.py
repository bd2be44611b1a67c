"""From the volume that a node hands over to slices of 1 mm, where the lungs are, and back. Part of what is shipped."""

from __future__ import annotations

from torch import Tensor, cat
from torch.nn import functional

SIZE = 512  # rows and columns of the node's volume
WINDOW = (-1000.0, 400.0)  # HU that become 0 and 1
SIDE = 352  # rows and columns of a slice of the grid, each 1 mm
COARSE = 4  # mm, of the masks
AIR = (-400.0 - WINDOW[0]) / (WINDOW[1] - WINDOW[0])  # -400 HU: under it air and lung, above it tissue
_OPEN, _CLOSE, _SHRINK = 3, 9, 5  # coarse cells, odd: what is too thin for lung, what is closed, what is given back


def lungs(slices: Tensor) -> Tensor:
    """Return where lung is, with what grows at its edge, as 0 and 1, shape as `slices`: (S, 1, R, C) in 0..1.

    Cells are some 4 mm. Lung is air with tissue on all four sides within its slice, without what is too thin (the gap
    between back and table), closed over vessels and nodules at the pleura, and 8 mm more.
    """
    tissue = (slices >= AIR).float()
    enclosed = 1.0 - tissue
    for axis in (2, 3):
        before = tissue.cummax(axis).values
        after = tissue.flip(axis).cummax(axis).values.flip(axis)
        enclosed = enclosed * before * after
    return _erode(_dilate(_dilate(_erode(enclosed, _OPEN), _OPEN), _CLOSE), _SHRINK)


def center(volume: Tensor) -> Tensor:
    """Return the middle of the lungs of (S, 1, R, C) as (x, y) in -1..1 of the slice, shape (2,); the slice's if none.

    One place for all slices, so that a slice and its neighbours stay in line.
    """
    mask = lungs(functional.avg_pool2d(volume, 2 * COARSE))
    share = mask / mask.sum().clamp(min=1.0)
    columns, rows = share.sum(dim=(0, 1, 2)), share.sum(dim=(0, 1, 3))
    size = columns.shape[0]
    places = (2.0 * (columns.cumsum(0) * 0.0 + 1.0).cumsum(0) - 1.0) / size - 1.0
    return cat([(columns * places).sum().reshape(1), (rows * places).sum().reshape(1)])


def to_grid(volume: Tensor, steps: Tensor, middle: Tensor) -> Tensor:
    """Return slices of 1 mm around `middle`, (S, 1, SIDE, SIDE), of slices (S, 1, SIZE, SIZE); outside is air.

    `steps` is (1, 3): mm between slices, rows and columns of the volume. What is finer than 1 mm is smoothed first.
    """
    weight = (0.3 * (1.0 / steps[0, 2] - 1.0)).clamp(0.0, 0.3)
    for axis in (2, 3):
        beside = volume.roll(1, axis) + volume.roll(-1, axis)
        volume = volume * (1.0 - 2.0 * weight) + weight * beside
    places = _places(volume.shape[0], SIDE, SIDE / SIZE / steps[0, 2], SIDE / SIZE / steps[0, 1], volume)
    return functional.grid_sample(volume, places + middle, align_corners=False)


def from_grid(slices: Tensor, steps: Tensor, middle: Tensor) -> Tensor:
    """Return slices (S, 1, SIZE, SIZE) of the volume of slices (S, 1, SIDE, SIDE) of the grid; 0 outside of it."""
    x, y = SIZE * steps[0, 2] / SIDE, SIZE * steps[0, 1] / SIDE
    places = _places(slices.shape[0], SIZE, x, y, slices)
    shift = cat([(middle[0] * x).reshape(1), (middle[1] * y).reshape(1)])
    return functional.grid_sample(slices, places - shift, align_corners=False)


def _places(count: int, side: int, x: Tensor, y: Tensor, like: Tensor) -> Tensor:
    """Return where pixels of `count` slices of `side` lie in a source, (count, side, side, 2), scaled by x and y."""
    line = (2.0 * like.new_ones(side).cumsum(0) - 1.0) / side - 1.0
    columns = (line * x)[None, :].expand(side, side)
    rows = (line * y)[:, None].expand(side, side)
    flat = cat([columns[..., None], rows[..., None]], dim=2)
    return flat[None].expand(count, side, side, 2)


def _dilate(mask: Tensor, cells: int) -> Tensor:
    return functional.max_pool2d(mask, cells, 1, cells // 2)


def _erode(mask: Tensor, cells: int) -> Tensor:
    return 1.0 - _dilate(1.0 - mask, cells)
