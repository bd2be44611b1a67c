"""The whole training, from films to a signed package."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from cxr import evaluate
from cxr.calibrate import choose_threshold, platt, sigmoid
from cxr.data import FOLDS, LABELS, load_films, split
from cxr.features import cached_features
from cxr.fit import members, predict
from cxr.net import OpacityNet, average
from cxr.write import write_package


def train(options: argparse.Namespace) -> None:
    """Cross-validate, calibrate, train on all films and write the package."""
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    films = load_films(options.labels)
    features = cached_features(films, options.data, options.work, OpacityNet(len(LABELS), seed=0), options.seed)
    folds = split(films, options.seed)
    read = np.array([film.read for film in films])
    logits = np.zeros(len(films))
    heats = np.zeros((len(films), 16, 16), dtype=np.float32)
    for fold in range(FOLDS):
        rows = np.flatnonzero((folds == fold) & read)
        nets = members(films, features, np.flatnonzero(folds != fold), options, f"fold-{fold}")
        logits[rows], heats[rows] = predict(average(nets), features, rows)
    rows = np.flatnonzero(read)
    shown = [films[row] for row in rows]
    positive = np.array([film.group == "opacity" for film in shown])
    slope, intercept = platt(logits[rows], positive)
    scores = sigmoid(slope * logits[rows] + intercept)
    judged = evaluate.Judged.of(shown, scores, heats[rows])
    figures = evaluate.bootstrap(judged, options.seed, evaluate.FIGURES)
    for figure in figures:
        print(f"{figure.name}: {figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})", flush=True)
    whole = average(members(films, features, np.arange(len(films)), options, "all"))
    write_package(
        whole,
        films,
        judged,
        folds,
        figures,
        calibration=(slope, intercept),
        threshold=choose_threshold(scores, positive),
        options=options,
    )
