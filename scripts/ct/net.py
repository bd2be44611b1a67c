"""The network: a small U-Net that looks at one slice of 1 mm pixels with its neighbours at fixed distances in mm."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

REACH = 4  # neighbours on each side
APART_MM = 2.5  # between neighbours
CHANNELS = 2 * REACH + 1
WIDTHS = (12, 24, 48, 72)


class NoduleNet(nn.Module):
    """(N, 9, R, C) in 0..1, the slice in the middle channel -> logits (N, R, C) that a pixel of it is of a nodule.

    R and C are multiples of 8.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        inputs = (CHANNELS, *WIDTHS[:-1])
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip(inputs, WIDTHS, strict=True))
        self.up = nn.ModuleList(_pair(a + b, a) for a, b in pairwise(WIDTHS))
        self.last = nn.Conv2d(WIDTHS[0], 1, 1)
        nn.init.constant_(self.last.bias, -3.0)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        x = x * 2.0 - 1.0
        for level, pair in enumerate(self.down):
            x = pair(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for level in reversed(range(len(self.up))):
            wide = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.up[level](torch.cat([kept[level], wide], dim=1))
        return self.last(x).squeeze(1)


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with its norm."""
    parts: list[nn.Module] = []
    for width in (inputs, outputs):
        parts += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)
