"""Training of the one network, in steps that can be interrupted."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ct.net import NoduleNet
from ct.sample import Seeds, draw
from ct.scan import Scan

BATCH = 12
RATE = 2e-3
EMA = 0.99
POSITIVE_WEIGHT = 2.0
HARDEST = 0.06  # share of the pixels of a batch that count: those that the network has most wrong
SAVE_EVERY = 100


def fit(scan: Scan, seeds: Seeds, *, seed: int, steps: int, work: Path) -> NoduleNet:
    """Return the moving average of a network trained for `steps` batches, deterministic by `seed`.

    What is done lies in `work`; a second run goes on from there.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"net-seed-{seed}-steps-{steps}.pt"
    net = NoduleNet(seed).to(memory_format=torch.channels_last).train()
    smooth = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    done = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        net.load_state_dict(state["net"])
        smooth.load_state_dict(state["smooth"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
    began, running = time.monotonic(), 0.0
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            )
        pixels, target = _batch(scan, seeds, np.random.default_rng([seed, step]))
        loss = _loss(net(pixels), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _follow(smooth, net, min(EMA, (step + 1) / (step + 10)))
        running = 0.95 * running + 0.05 * loss.item() if running else loss.item()
        if step % SAVE_EVERY == SAVE_EVERY - 1 or step == steps - 1:
            _save(path, {"net": net, "smooth": smooth, "optimizer": optimizer}, step + 1)
            spent = time.monotonic() - began
            left = spent / (step + 1 - done) * (steps - step - 1)
            print(f"step {step + 1}/{steps} loss {running:.3f} {spent:.0f} s, {left:.0f} s left", flush=True)
    return smooth


def _batch(scan: Scan, seeds: Seeds, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    patches = [draw(scan, seeds, rng) for _ in range(BATCH)]
    pixels = torch.from_numpy(np.stack([patch.pixels for patch in patches]))
    target = torch.from_numpy(np.stack([patch.target for patch in patches]))
    return pixels.contiguous(memory_format=torch.channels_last), target


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the pixels that are most wrong, and one minus Dice of the batch."""
    weight = torch.tensor(POSITIVE_WEIGHT)
    pixels = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none").flatten()
    hardest = pixels.topk(int(HARDEST * pixels.numel()), sorted=False).values.mean()
    share = torch.sigmoid(logits)
    dice = (2 * (share * target).sum() + 1) / ((share * share).sum() + (target * target).sum() + 1)
    return hardest + 1 - dice


@torch.no_grad()
def _follow(smooth: NoduleNet, net: NoduleNet, decay: float) -> None:
    """Move the average towards the network, its running norms included."""
    for slow, fast in zip(smooth.state_dict().values(), net.state_dict().values(), strict=True):
        if slow.dtype.is_floating_point:
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _save(path: Path, parts: dict[str, torch.nn.Module | torch.optim.Optimizer], done: int) -> None:
    unfinished = path.with_suffix(".part")
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "done": done}, unfinished)
    unfinished.replace(path)
