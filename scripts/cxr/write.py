"""Everything that was trained and measured, as a signed package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from parcel.sign import device_uid, finish, new_folder

from cxr import figures as pictures
from cxr.calibrate import operating_point, sigmoid
from cxr.card import Measured, card
from cxr.data import SIZE, Film, held_out_films, read_film
from cxr.evaluate import FIGURES, Figure, Judged, bootstrap, densest_spot_baseline, peak_in_box, view_baseline
from cxr.export import Served, export
from cxr.features import to_tensor
from cxr.manifest import NAME, manifest
from cxr.net import OpacityNet
from radnode.detect.regions import peak

AUC_FIGURES = {name: measure for name, measure in FIGURES.items() if name.startswith("AUC, ")}


def write_package(
    net: OpacityNet,
    films: Sequence[Film],
    judged: Judged,
    folds: np.ndarray,
    figures: list[Figure],
    *,
    calibration: tuple[float, float],
    threshold: float,
    options: argparse.Namespace,
) -> None:
    """Write `<out>/cxr-opacity/<version>` beside its place, sign it, check it, and put it in its place."""
    folder = new_folder(options.out, NAME, options.version)
    export(net, folder / "weights.pt2")
    uid = device_uid(folder)
    fold_of = folds[[film.read for film in films]]
    point = densest_spot_baseline(judged, fold_of, films, folds)
    measured = Measured(
        figures=figures,
        view_only=bootstrap(view_baseline(judged), options.seed, AUC_FIGURES),
        densest=bootstrap(point, options.seed, {"highest point in a box": peak_in_box}),
        threshold=threshold,
        sensitivity=operating_point(judged.scores, judged.opaque, threshold)[0],
        specificity=operating_point(judged.scores, judged.opaque, threshold)[1],
        brier=float(np.mean((judged.scores - judged.opaque) ** 2)),
        held_out=_held_out(net, calibration, options),
    )
    text = card(options.version, uid, films, measured, options.members)
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    (folder / "metrics.json").write_text(_metrics(measured), encoding="utf-8")
    pictures.roc(judged, folder / "figures/roc.png")
    pictures.froc_curve(judged, folder / "figures/froc.png")
    pictures.calibration(judged, folder / "figures/calibration.png")
    show = partial(read_film, options.data)
    pictures.examples(judged, threshold, show, folder / "figures/examples.png", options.seed)
    command = f"scripts/train-cxr --seed {options.seed} --epochs {options.epochs} --members {options.members}"
    finish(
        folder,
        options,
        lambda files: manifest(
            version=options.version,
            device_uid=uid,
            files=files,
            films=films,
            figures=figures,
            threshold=threshold,
            calibration=calibration,
            deciles=np.percentile(judged.scores, range(10, 100, 10)).tolist(),
            seed=options.seed,
            command=command,
        ),
    )


def _held_out(
    net: OpacityNet, calibration: tuple[float, float], options: argparse.Namespace
) -> list[tuple[Film, float, bool]]:
    """Return what the shipped model says of each held-out film."""
    served, result = Served(net).eval(), []
    for film in held_out_films(options.labels):
        with torch.inference_mode():
            logit, heat = served(to_tensor([read_film(options.data, film)]))
        x, y = (share * SIZE for share in peak(heat[0].numpy()))
        inside = any(left <= x < left + w and top <= y < top + h for left, top, w, h in film.boxes)
        result.append((film, float(sigmoid(calibration[0] * logit.numpy() + calibration[1])[0]), inside))
    return result


def _metrics(measured: Measured) -> str:
    """Return the figures as JSON."""
    document = {
        "out_of_fold": [asdict(figure) for figure in measured.figures],
        "baseline_view_only": [asdict(figure) for figure in measured.view_only],
        "baseline_densest_spot": [asdict(figure) for figure in measured.densest],
        "threshold": measured.threshold,
        "sensitivity_at_threshold": measured.sensitivity,
        "specificity_at_threshold": measured.specificity,
        "brier": measured.brier,
        "held_out_patients": [
            {"film": film.name, "view": film.view, "group": film.group, "score": score, "peak_in_box": inside}
            for film, score, inside in measured.held_out
        ],
    }
    return json.dumps(document, indent=2) + "\n"
