"""What is shipped: from the node's volume to heat whose regions are nodules, as one torch.export program."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as each
from torch.nn import functional

from ct.grid import COARSE, SIZE, center, from_grid, lungs, to_grid
from ct.net import APART_MM, REACH, NoduleNet

WHOLE = (3, 5, 5)  # slices, rows, columns (mm) that a nodule's score is the mean of
SPREAD = 18  # steps of 2 mm that a score is carried through one region
EDGE = 0.4  # share of a pixel from which on it counts: readers look at lung windows, where edges lie further out
MIN_SLICES = 8


class Served(nn.Module):
    """Volume float32 (1, S, 512, 512) in 0..1 and steps (1, 3) in mm -> logit (1,), heat logits (1, S, 512, 512).

    The heat of a pixel is its share of nodule, made 0.5 at the edge, times the score of the nodule it belongs to. So
    half of a region's highest heat is its edge. The score of a nodule is the highest mean share of `WHOLE` around one
    of its pixels, which small and thin things and those outside of the lungs do not reach; that of the series is its
    highest.
    """

    def __init__(self, net: NoduleNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, volume: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        slices = volume[0][:, None]
        middle = center(slices)
        heat = self.heat(to_grid(slices, steps, middle), steps)
        cells = from_grid(heat, steps, middle)[:, 0]
        return torch.logit(heat.max().reshape(1), 1e-6), torch.logit(cells, 1e-6)[None]

    def heat(self, grid: Tensor, steps: Tensor) -> Tensor:
        """Return heat (S, 1, SIDE, SIDE) of slices of the grid, which have the same shape."""
        mask = functional.interpolate(lungs(functional.avg_pool2d(grid, COARSE)), scale_factor=float(COARSE))
        share = (torch.sigmoid(self.logits(grid, steps))[:, None] * (0.5 / EDGE)).clamp(max=1.0)
        within = (share * mask)[:, 0][None, None]
        score = functional.avg_pool3d(within, WHOLE, 1, tuple(n // 2 for n in WHOLE))[0, 0][:, None]
        part = (functional.max_pool2d(share, 2) >= 0.5).float()
        carried = functional.max_pool2d(score, 2) * part
        for _ in range(SPREAD):
            carried = _grown(carried) * part
        wide = functional.interpolate(functional.max_pool2d(carried, 3, 1, 1), scale_factor=2.0)
        return share * wide

    def logits(self, grid: Tensor, steps: Tensor) -> Tensor:
        """Return what the network says of each slice with its neighbours, (S, SIDE, SIDE); slices end as they begin."""
        count = grid.shape[0]
        offsets = (grid.new_ones(2 * REACH + 1).cumsum(0) - REACH - 1.0) * APART_MM / steps[0, 0]

        def one(number: Tensor, slices: Tensor) -> Tensor:
            wanted = (number + offsets).clamp(min=0).clamp(max=count - 1)
            below = wanted.floor()
            share = (wanted - below)[:, None, None]
            above = (below + 1).clamp(max=count - 1)
            stack = torch.lerp(slices.index_select(0, below.long()), slices.index_select(0, above.long()), share)
            return self.net(stack[None])[0]

        return each(one, torch.arange(count, dtype=torch.float32, device=grid.device), grid[:, 0])


def _grown(values: Tensor) -> Tensor:
    """Return the highest value of each cell and its 26 neighbours, shape (S, 1, R, C)."""
    within = functional.max_pool2d(values, 3, 1, 1)
    across = functional.max_pool2d(within[:, 0].flatten(1).transpose(0, 1)[None], (1, 3), 1, (0, 1))[0]
    return across.transpose(0, 1).reshape(values.shape)


def export(net: NoduleNet, path: Path) -> None:
    """Write `path`, a .pt2 for any number of slices, without sample inputs and paths of this machine."""
    served = Served(net).eval().to(memory_format=torch.contiguous_format)
    for parameter in served.parameters():
        parameter.requires_grad_(False)
    example = (torch.zeros(1, MIN_SLICES + 3, SIZE, SIZE), torch.ones(1, 3))
    slices = torch.export.Dim("slices", min=MIN_SLICES, max=4096)
    program = torch.export.export(served, example, dynamic_shapes=({1: slices}, None))
    program._example_inputs = None  # they would be pickled
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    torch.export.save(program, path)
    _compare(served, torch.export.load(path).module())


@torch.inference_mode()
def _compare(served: nn.Module, loaded: nn.Module) -> None:
    """Stop when the program read back does not give what the network gives."""
    noise = torch.rand((1, 11, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([[2.5, 0.7, 0.7]])
    for expected, got in zip(served(noise, steps), loaded(noise, steps), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)
