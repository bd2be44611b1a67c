"""The table and the pictures of a package that looks at images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from cxr import figures
from cxr.calibrate import operating_point
from cxr.data import Film
from cxr.evaluate import FIGURES, Figure, Judged, bootstrap, view_baseline

from evaluation.films import judge, labelled, square
from radnode.detect.package import Package
from radnode.detect.pixels import FloatImage


def evaluate(package: Package, data: Path, labels: Path, out: Path, seed: int) -> list[Figure]:
    """Print the table of the card for a labelled folder, beside the card's own figures; write the pictures."""
    films = labelled(data, labels)
    judged, failed = judge(package, films)
    has_map = package.manifest.output.form != "classes"
    measured = bootstrap(judged, seed, {name: value for name, value in FIGURES.items() if has_map or "AUC" in name})
    opaque = int(judged.opaque.sum())
    patients = len({film.patient for film in judged.films})
    print(f"{len(judged.films)} films of {patients} patients, {opaque} with opacity; {len(failed)} not looked at\n")
    print("| figure | here | 95 % CI | card | 95 % CI of the card | within it |")
    print("|---|---|---|---|---|---|")
    for figure in measured:
        print(row(package, figure))
    threshold = package.manifest.output.threshold
    if 0 < opaque < len(judged.films):
        sensitivity, specificity = operating_point(judged.scores, judged.opaque, threshold)
        [baseline, *_] = bootstrap(view_baseline(judged), seed, {"AUC": FIGURES["AUC, opacity against all others"]})
        print(f"\nAt the threshold {threshold:g}: sensitivity {sensitivity:.2f}, specificity {specificity:.2f}.")
        print(f"Knowing the view alone: AUC {baseline.value:.3f} ({baseline.low:.3f}-{baseline.high:.3f}).")
    print(f"Brier score {float(np.mean((judged.scores - judged.opaque) ** 2)):.3f}.")
    _draw(package, judged, {item.film.name: item.path for item in films}, out, seed)
    print(f"\nPictures: {out}")
    return measured


def row(package: Package, figure: Figure) -> str:
    """Return one figure as a row, beside what the card says of it."""
    said = next((item for item in package.manifest.performance if item.name == figure.name), None)
    here = "- | -" if math.isnan(figure.value) else f"{figure.value:.3f} | {figure.low:.3f}-{figure.high:.3f}"
    if said is None:
        return f"| {figure.name} | {here} | - | - | - |"
    within = "-" if math.isnan(figure.value) else "yes" if said.low <= figure.value <= said.high else "NO"
    return f"| {figure.name} | {here} | {said.value:.3f} | {said.low:.3f}-{said.high:.3f} | {within} |"


def _draw(package: Package, judged: Judged, paths: dict[str, Path], out: Path, seed: int) -> None:
    """Write the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    which = f"{len(judged.films)} films"
    spec = package.manifest.input
    if spec is None:
        raise ValueError("the package looks at whole series")

    def show(film: Film) -> FloatImage:
        return square(paths[film.name], spec)

    figures.roc(judged, out / "roc.png", which)
    figures.froc_curve(judged, out / "froc.png", which)
    figures.calibration(judged, out / "calibration.png", which)
    figures.examples(judged, package.manifest.output.threshold, show, out / "examples.png", seed)
