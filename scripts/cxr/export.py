"""The trained network as one torch.export program."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cxr.data import SIZE
from cxr.net import OpacityNet

MAX_BATCH = 64


class Served(nn.Module):
    """What is shipped: the network on the film and on its mirror image, averaged.

    float32 (N, 3, 256, 256) -> image logits (N,) and heat logits (N, 16, 16).
    """

    def __init__(self, net: OpacityNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        image, heat = self.net(x)
        mirrored_image, mirrored_heat = self.net(x.flip(3))
        return (image + mirrored_image) / 2, (heat + mirrored_heat.flip(2)) / 2


def export(net: OpacityNet, path: Path) -> None:
    """Write `path`, a .pt2 of dynamic batch that holds numbers and a graph, no sample inputs and no source paths."""
    served = Served(net).eval().to(memory_format=torch.contiguous_format)
    for parameter in served.parameters():
        parameter.requires_grad_(False)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    program = torch.export.export(served, (torch.zeros(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    program._example_inputs = None  # they would be pickled
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # they name folders of this machine
    torch.export.save(program, path)
    _compare(served, torch.export.load(path).module())


@torch.inference_mode()
def _compare(served: nn.Module, loaded: nn.Module) -> None:
    """Stop when the program read back does not give what the network gives."""
    noise = torch.rand((5, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    for expected, got in zip(served(noise), loaded(noise), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
