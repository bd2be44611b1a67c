"""Fine-tuning of one network on cached features."""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from cxr.data import LABELS, Film
from cxr.features import COPIES, Features
from cxr.net import OpacityNet

BATCH = 32
SAMPLES_PER_EPOCH = 1100
BACKBONE_RATE = 6e-5
HEAD_RATE = 1e-3
EMA = 0.98
POSITIVE_WEIGHT = 3.0
LABEL_SHARE = 0.3
# Share of each group in the samples, the same within both views, so that the view tells nothing.
SHARES = {"opacity": 0.28, "weak": 0.22, "abnormal": 0.20, "normal": 0.12, "clear": 0.12, "other": 0.06}


@dataclass(frozen=True)
class Targets:
    """What is known of each film, one row a film."""

    image: torch.Tensor
    labels: torch.Tensor
    heat_known: torch.Tensor

    @classmethod
    def of(cls, films: Sequence[Film]) -> Targets:
        """Collect the targets; where opacities lie is known for boxed films and for those without any."""
        return cls(
            torch.tensor([film.target for film in films]),
            torch.tensor([film.labels for film in films], dtype=torch.float32),
            torch.tensor([bool(film.boxes) or film.group in {"normal", "abnormal", "clear"} for film in films]).float(),
        )


def draw(films: Sequence[Film], allowed: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` indices of allowed films: both views equally, within each the groups by their shares."""
    chosen = []
    for view in ("AP", "PA"):
        for group, share in SHARES.items():
            members = [i for i in allowed if films[i].view == view and films[i].group == group]
            wanted = round(count / 2 * share)
            full = np.concatenate([rng.permutation(members) for _ in range(math.ceil(wanted / len(members)))])
            chosen.append(full[:wanted])
    return rng.permutation(np.concatenate(chosen)).astype(np.int64)


def train(
    films: Sequence[Film], features: Features, allowed: np.ndarray, *, seed: int, epochs: int, label: str
) -> OpacityNet:
    """Return a network fine-tuned on the allowed films (its moving average), deterministic by `seed`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = OpacityNet(len(LABELS), seed=0).to(memory_format=torch.channels_last).train()
    smooth = copy.deepcopy(net).eval()
    targets = Targets.of(films)
    optimizer = torch.optim.AdamW(
        [
            {"params": net.backbone_parameters(), "lr": BACKBONE_RATE},
            {"params": net.head_parameters(), "lr": HEAD_RATE},
        ],
        weight_decay=0.01,
    )
    order = np.concatenate([draw(films, allowed, SAMPLES_PER_EPOCH, rng) for _ in range(epochs)])
    steps = len(order) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    began, running = time.monotonic(), 0.0
    for step in range(steps):
        picked = order[step * BATCH : (step + 1) * BATCH]
        copies = rng.integers(COPIES, size=len(picked))
        batch = torch.from_numpy(features.values[picked, copies].astype(np.float32))
        cover = torch.from_numpy(features.cover[picked, copies])
        loss = _loss(net, batch.contiguous(memory_format=torch.channels_last), cover, targets, picked)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(smooth.parameters(), net.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        running = 0.9 * running + 0.1 * loss.item() if step else loss.item()
        if step % 20 == 19 or step == steps - 1:
            print(f"{label} step {step + 1}/{steps} loss {running:.3f} {time.monotonic() - began:.0f} s", flush=True)
    return smooth


def _loss(
    net: OpacityNet, batch: torch.Tensor, cover: torch.Tensor, targets: Targets, picked: np.ndarray
) -> torch.Tensor:
    image, heat, labels = net.train_forward(batch)
    rows = torch.from_numpy(picked)
    known = targets.heat_known[rows]
    weight = torch.tensor(POSITIVE_WEIGHT)
    cells = functional.binary_cross_entropy_with_logits(heat, cover, pos_weight=weight, reduction="none").mean(
        dim=(1, 2)
    )
    return (
        functional.binary_cross_entropy_with_logits(image, targets.image[rows])
        + (cells * known).sum() / known.sum().clamp(min=1)
        + LABEL_SHARE * functional.binary_cross_entropy_with_logits(labels, targets.labels[rows])
    )


@torch.inference_mode()
def predict(net: OpacityNet, features: Features, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return image logits (rows,) and heat probabilities (rows, 16, 16), mean of the film and its mirror image."""
    logits, heats = [], []
    for start in range(0, len(rows), BATCH):
        picked = rows[start : start + BATCH]
        image, heat = _forward(net, features.values[picked, 0])
        mirrored_image, mirrored_heat = _forward(net, features.values[picked, 1])
        logits.append(((image + mirrored_image) / 2).numpy())
        heats.append(torch.sigmoid((heat + mirrored_heat.flip(2)) / 2).numpy())
    return np.concatenate(logits), np.concatenate(heats)


def _forward(net: OpacityNet, features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    batch = torch.from_numpy(features.astype(np.float32)).contiguous(memory_format=torch.channels_last)
    image, heat, _ = net.train_forward(batch)
    return image, heat


def members(
    films: Sequence[Film], features: Features, allowed: np.ndarray, options: argparse.Namespace, label: str
) -> list[OpacityNet]:
    """Return the fine-tunings on the allowed films, taking from the work folder those that are finished."""
    nets = []
    for member in range(options.members):
        path = options.work / f"net-{label}-seed-{options.seed + member}-epochs-{options.epochs}.pt"
        if path.exists():
            net = OpacityNet(len(LABELS), seed=0).to(memory_format=torch.channels_last).eval()
            net.load_state_dict(torch.load(path, weights_only=True))
        else:
            seed = options.seed + member
            net = train(films, features, allowed, seed=seed, epochs=options.epochs, label=f"{label} seed {seed}")
            unfinished = path.with_suffix(".part")
            torch.save(net.state_dict(), unfinished)
            unfinished.replace(path)
        nets.append(net)
    return nets
