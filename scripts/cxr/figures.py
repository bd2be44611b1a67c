"""The pictures of the card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from cxr.data import SIZE, Film
from cxr.evaluate import Judged, auc, froc
from radnode.detect.pixels import FloatImage

METADATA = {"Software": None, "Creation Time": None}  # the same figures give the same bytes
BINS = 8


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata=METADATA)
    plt.close(figure)


def roc(judged: Judged, path: Path, which: str = "out of fold") -> None:
    """ROC curve of all films and of each view that has both classes; `which` films they are stands in the title."""
    figure, axes = plt.subplots(figsize=(5, 5))
    for name, rows in [
        ("all", np.ones(len(judged.films), dtype=bool)),
        *((view, np.array([film.view == view for film in judged.films])) for view in ("AP", "PA")),
    ]:
        positive, scores = judged.opaque[rows], judged.scores[rows]
        if positive.all() or not positive.any():
            continue
        order = np.argsort(-scores)
        hit = np.concatenate([[0], np.cumsum(positive[order]) / positive.sum()])
        false = np.concatenate([[0], np.cumsum(~positive[order]) / (~positive).sum()])
        axes.plot(false, hit, label=f"{name}: AUC {auc(positive, scores):.2f} ({int(positive.sum())}/{len(scores)})")
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"Opacity against all others, {which}")
    axes.legend(loc="lower right")
    _save(figure, path)


def froc_curve(judged: Judged, path: Path, which: str = "out of fold") -> None:
    """Sensitivity per reader's box against false boxes per film."""
    false, hits = froc(judged)
    figure, axes = plt.subplots(figsize=(5, 4))
    axes.plot(false, hits)
    axes.axvline(0.5, color="k", linestyle=":", linewidth=1)
    axes.set(xlabel="false boxes per film", ylabel="sensitivity per box (IoU >= 0.2)", title=f"FROC, {which}")
    axes.set(xlim=(0, max(1.0, float(false.max(initial=0.0)))), ylim=(0, 1))
    _save(figure, path)


def calibration(judged: Judged, path: Path, which: str = "out of fold") -> None:
    """Share of opaque films against the score, in bins of equal count."""
    figure, axes = plt.subplots(figsize=(5, 4))
    order = np.argsort(judged.scores)
    groups = np.array_split(order, min(BINS, len(order)))
    axes.plot(
        [judged.scores[group].mean() for group in groups], [judged.opaque[group].mean() for group in groups], "o-"
    )
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    axes.set(xlabel="mean score", ylabel="share with opacity", title=f"Calibration, {which}", xlim=(0, 1))
    _save(figure, path)


def examples(judged: Judged, threshold: float, show: Callable[[Film], FloatImage], path: Path, seed: int) -> None:
    """Up to eight films drawn by chance, four with and four without opacity: readers' boxes green, the model's red.

    `show` gives a film as the network's square, (SIZE, SIZE) in 0..1.
    """
    rng = np.random.default_rng(seed)
    opaque = judged.opaque
    rows = [
        *rng.choice(np.flatnonzero(opaque), min(4, opaque.sum()), replace=False),
        *rng.choice(np.flatnonzero(~opaque), min(4, (~opaque).sum()), replace=False),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.4))
    for place in axes.flat:
        place.axis("off")
    for row, place in zip(rows, axes.flat, strict=False):
        film = judged.films[row]
        place.imshow(show(film), cmap="gray", vmin=0, vmax=1)
        for x, y, w, h in film.boxes:
            place.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="lime"))
        if judged.scores[row] >= threshold:
            for box in judged.found[row]:
                corner = box.left * SIZE, box.top * SIZE
                size = (box.right - box.left) * SIZE, (box.bottom - box.top) * SIZE
                place.add_patch(Rectangle(corner, *size, fill=False, edgecolor="red"))
        place.set_title(f"{film.group}, {film.view}, score {judged.scores[row]:.2f}", fontsize=9)
    _save(figure, path)
