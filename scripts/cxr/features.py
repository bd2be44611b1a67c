"""The frozen part of the network, run once: features of every film clean, flipped and augmented, kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image, ImageFilter

from cxr.data import CELLS, INPUT, SIZE, Film, coverage, read_film
from cxr.net import OpacityNet
from radnode.detect.pixels import FloatImage

AUGMENTED = 8
COPIES = 2 + AUGMENTED  # 0 clean, 1 flipped, 2.. augmented
CHUNK = 16


@dataclass(frozen=True)
class Features:
    """`values` is float16 (films, copies, 40, 32, 32), `cover` float32 (films, copies, 16, 16)."""

    values: np.ndarray
    cover: np.ndarray


def _fine_mask(film: Film) -> Image.Image:
    mask = np.zeros((SIZE, SIZE), dtype=np.float32)
    for x, y, w, h in film.boxes:
        mask[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = 1.0
    return Image.fromarray(mask)


def augment(square: FloatImage, film: Film, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Return one changed copy of a film (0..1) and its coverage: moved as a whole, and changed in tone."""
    angle = np.deg2rad(rng.uniform(-7, 7))
    scale = 1.0 / rng.uniform(0.88, 1.12)
    shift = rng.uniform(-0.1, 0.1, 2) * SIZE
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin, centre = np.cos(angle) * scale, np.sin(angle) * scale, SIZE / 2
    a, b, d, e = mirror * cos, mirror * -sin, sin, cos
    matrix = (
        a, b, centre - a * (centre + shift[0]) - b * (centre + shift[1]),
        d, e, centre - d * (centre + shift[0]) - e * (centre + shift[1]),
    )  # fmt: skip
    moved = Image.fromarray(square).transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    mask = _fine_mask(film).transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if rng.random() < 0.3:
        grey = Image.fromarray((np.asarray(moved) * 255).astype(np.uint8))
        moved = grey.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
        pixels = np.asarray(moved, dtype=np.float32) / 255
    else:
        pixels = np.asarray(moved, dtype=np.float32)
    pixels = np.clip(pixels, 0, 1) ** np.float32(np.exp(rng.uniform(-0.3, 0.3)))
    pixels = (pixels - 0.5) * np.float32(rng.uniform(0.85, 1.15)) + 0.5 + np.float32(rng.uniform(-0.08, 0.08))
    step = SIZE // CELLS
    cover = np.asarray(mask).reshape(CELLS, step, CELLS, step).mean(axis=(1, 3))
    return np.clip(pixels, 0, 1).astype(np.float32), cover.astype(np.float32)


def to_tensor(squares: Sequence[FloatImage]) -> torch.Tensor:
    """Return normalised float32 (N, 3, 256, 256) of squares in 0..1."""
    stack = torch.from_numpy(np.stack(squares))[:, None]
    mean = torch.tensor(INPUT.mean)[:, None, None]
    std = torch.tensor(INPUT.std)[:, None, None]
    return ((stack - mean) / std).contiguous(memory_format=torch.channels_last)


def cached_features(films: Sequence[Film], folder: Path, work: Path, net: OpacityNet, seed: int) -> Features:
    """Return the features of every film, computing only the films that `work` does not hold yet."""
    work.mkdir(parents=True, exist_ok=True)
    shape = (len(films), COPIES, 40, SIZE // 8, SIZE // 8)
    paths = work / f"features-{seed}.npy", work / f"cover-{seed}.npy", work / f"done-{seed}.txt"
    names = "\n".join(film.name for film in films)
    resumed = paths[2].exists() and paths[2].read_text().partition("\n\n")[2] == names
    done = int(paths[2].read_text().partition("\n\n")[0]) if resumed else 0
    mode = "r+" if resumed else "w+"
    values = open_memmap(paths[0], mode=mode, dtype=np.float16, shape=None if resumed else shape)
    cover = open_memmap(
        paths[1], mode=mode, dtype=np.float32, shape=None if resumed else (len(films), COPIES, CELLS, CELLS)
    )
    net.eval().to(memory_format=torch.channels_last)
    for index in range(done, len(films)):
        film = films[index]
        rng = np.random.default_rng([seed, index])
        square = read_film(folder, film)
        clean = coverage(film.boxes)
        copies = [(square, clean), (square[:, ::-1].copy(), clean[:, ::-1])]
        copies += [augment(square, film, rng) for _ in range(AUGMENTED)]
        with torch.inference_mode():
            values[index] = net.features(to_tensor([copy[0] for copy in copies])).numpy().astype(np.float16)
        cover[index] = np.stack([copy[1] for copy in copies])
        if index % CHUNK == CHUNK - 1 or index == len(films) - 1:
            values.flush()
            cover.flush()
            paths[2].write_text(f"{index + 1}\n\n{names}")
            print(f"features {index + 1}/{len(films)}", flush=True)
    return Features(values, cover)
