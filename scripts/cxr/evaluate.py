"""What is measured, with bootstrap 95 % confidence intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cxr.data import SIZE, Film, coverage
from radnode.detect.manifest import RegionSpec
from radnode.detect.regions import HeatBox, boxes, peak

BOOTSTRAPS = 1000
IOU = 0.2
FALSE_PER_IMAGE = 0.5
REGION = RegionSpec(kind="box", share_of_peak=0.4, floor=0.05, min_peak=0.05, max_regions=10)


@dataclass(frozen=True)
class Judged:
    """Read films with what a model said of each: `scores` (films,), `heats` (films, 16, 16), boxes per film."""

    films: list[Film]
    scores: np.ndarray
    heats: np.ndarray
    found: list[list[HeatBox]]

    @classmethod
    def of(cls, films: Sequence[Film], scores: np.ndarray, heats: np.ndarray, region: RegionSpec = REGION) -> Judged:
        """Cut the boxes once."""
        return cls(list(films), scores, heats, [boxes(heat, region) for heat in heats])

    @property
    def opaque(self) -> np.ndarray:
        """Which films the readers called Lung Opacity."""
        return np.array([film.group == "opacity" for film in self.films])

    def take(self, rows: np.ndarray) -> Judged:
        """The same for some films, a film possibly several times."""
        return Judged([self.films[i] for i in rows], self.scores[rows], self.heats[rows], [self.found[i] for i in rows])


def auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve (ties count half); NaN without both classes."""
    ranks = np.empty(len(scores))
    order = np.argsort(scores, kind="stable")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    ones = int(positive.sum())
    zeros = len(order) - ones
    if not ones or not zeros:
        return float("nan")
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def iou(found: HeatBox, box: tuple[float, float, float, float]) -> float:
    """Intersection over union of a found box and a reader's box."""
    x, y, w, h = (value / SIZE for value in box)
    width = min(found.right, x + w) - max(found.left, x)
    height = min(found.bottom, y + h) - max(found.top, y)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((found.right - found.left) * (found.bottom - found.top) + w * h - common)


def box_scores(judged: Judged) -> list[np.ndarray]:
    """Score of each found box, as the detector gives it: its share of the highest heat times the film's score."""
    return [
        np.array([box.share * score for box in found]) for found, score in zip(judged.found, judged.scores, strict=True)
    ]


def froc(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Return false boxes per film and sensitivity per reader's box, one point for each falling threshold."""
    events: list[tuple[float, int, int]] = []
    readers = 0
    for film, found, scores in zip(judged.films, judged.found, box_scores(judged), strict=True):
        readers += len(film.boxes)
        open_boxes = set(range(len(film.boxes)))
        for box, score in zip(found, scores, strict=True):
            hit = {i for i in open_boxes if iou(box, film.boxes[i]) >= IOU}
            open_boxes -= hit
            touches = any(iou(box, other) >= IOU for other in film.boxes)
            events.append((float(score), len(hit), 0 if touches else 1))
    events.sort(key=lambda event: -event[0])
    hits = np.cumsum([event[1] for event in events])
    false = np.cumsum([event[2] for event in events])
    return false / len(judged.films), hits / max(readers, 1)


def sensitivity_at(judged: Judged) -> float:
    """Share of the readers' boxes found at IoU >= 0.2 with at most 0.5 false boxes per film."""
    false, hits = froc(judged)
    allowed = hits[false <= FALSE_PER_IMAGE]
    return float(allowed[-1]) if len(allowed) else 0.0


def peak_in_box(judged: Judged) -> float:
    """Share of opaque films whose highest point lies in a reader's box."""
    inside = [
        any(x <= px * SIZE < x + w and y <= py * SIZE < y + h for x, y, w, h in film.boxes)
        for film, (px, py) in ((f, peak(h)) for f, h in zip(judged.films, judged.heats, strict=True))
        if film.group == "opacity"
    ]
    return float(np.mean(inside)) if inside else float("nan")


def _within(view: str) -> Callable[[Judged], float]:
    def measure(judged: Judged) -> float:
        rows = np.array([film.view == view for film in judged.films])
        return auc(judged.opaque[rows], judged.scores[rows])

    return measure


def _against_normal(judged: Judged) -> float:
    rows = np.array([film.group != "abnormal" for film in judged.films])
    return auc(judged.opaque[rows], judged.scores[rows])


FIGURES: dict[str, Callable[[Judged], float]] = {
    "AUC, opacity against all others": lambda judged: auc(judged.opaque, judged.scores),
    "AUC, opacity against normal": _against_normal,
    "AUC within AP": _within("AP"),
    "AUC within PA": _within("PA"),
    "highest point in a box": peak_in_box,
    "sensitivity at 0.5 false boxes per film (IoU >= 0.2)": sensitivity_at,
}


@dataclass(frozen=True)
class Figure:
    """One figure and its 95 % confidence interval."""

    name: str
    value: float
    low: float
    high: float


def bootstrap(judged: Judged, seed: int, measures: dict[str, Callable[[Judged], float]]) -> list[Figure]:
    """Measure, with percentile intervals over patients drawn with replacement."""
    rng = np.random.default_rng(seed)
    by_patient: dict[str, list[int]] = {}
    for index, film in enumerate(judged.films):
        by_patient.setdefault(film.patient, []).append(index)
    groups = list(by_patient.values())
    draws: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(BOOTSTRAPS):
        picked = rng.integers(len(groups), size=len(groups))
        sample = judged.take(np.array([row for group in picked for row in groups[group]]))
        for name, measure in measures.items():
            draws[name].append(measure(sample))
    return [
        Figure(name, measure(judged), *(float(v) for v in np.nanpercentile(draws[name], (2.5, 97.5))))
        for name, measure in measures.items()
    ]


def view_baseline(judged: Judged) -> Judged:
    """A "model" that knows only the view: AP scores 1, PA 0."""
    return Judged(
        judged.films,
        np.array([1.0 if film.view == "AP" else 0.0 for film in judged.films]),
        judged.heats,
        judged.found,
    )


def densest_spot_baseline(judged: Judged, folds: np.ndarray, training: Sequence[Film], of: np.ndarray) -> Judged:
    """A "model" that always points where the boxes of its training folds are densest."""
    heats = np.zeros_like(judged.heats)
    for fold in np.unique(folds):
        known = [film for film, other in zip(training, of, strict=True) if other != fold and film.group == "opacity"]
        heats[folds == fold] = np.mean([coverage(film.boxes) for film in known], axis=0)
    return Judged(judged.films, judged.scores, heats, judged.found)
