"""From logits to probabilities (Platt, 1999) and to a threshold, on validation patients alone."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

SENSITIVITY = 0.85


def platt(logits: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the best sigmoid, both classes with the weight they have."""
    fit = LogisticRegression(C=1e6).fit(logits[:, None], positive)
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-values))."""
    return 1.0 / (1.0 + np.exp(-values))


def choose_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the highest threshold that keeps a sensitivity of 0.85, halfway to the next lower score."""
    falling = np.sort(scores[positive])[::-1]
    kept = falling[int(np.ceil(SENSITIVITY * len(falling))) - 1]
    below = scores[scores < kept]
    return float((kept + below.max()) / 2) if len(below) else float(kept)


def operating_point(scores: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return sensitivity and specificity at a threshold."""
    said = scores >= threshold
    return float(said[positive].mean()), float((~said[~positive]).mean())
