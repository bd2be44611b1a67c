"""Labelled films of a folder, and what a package of the level instance says of them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cxr.data import SIZE, Film, all_films
from cxr.evaluate import Judged
from PIL import Image

from radnode.detect.detector import probabilities
from radnode.detect.manifest import InputSpec
from radnode.detect.package import Package
from radnode.detect.pixels import FloatImage, Geometry, PixelImage, decode_pixels, prepare
from radnode.detect.program import place_program
from radnode.detect.readings import read_output
from radnode.errors import DetectionError

COLUMNS = ("image", "patient", "view", "truth", "boxes")
TRUTHS = ("opacity", "normal", "abnormal")
SUFFIXES = ("", ".dcm", ".jpg", ".png")


@dataclass(frozen=True)
class Labelled:
    """A film and its file; `on_source` says that its boxes are in pixels of the file, not of the 256 x 256 square."""

    film: Film
    path: Path
    on_source: bool


def labelled(folder: Path, labels: Path) -> list[Labelled]:
    """Return the films of a table that readers judged and whose files are in the folder.

    The table is that of the training (`cxr.data`), or has `COLUMNS`: file name with or without suffix, patient, view
    (AP, PA or empty), one of `TRUTHS`, and boxes as JSON [[x, y, width, height], ...] in pixels of the file.

    Raises:
        SystemExit: it is neither, or no film of it is there.
    """
    with labels.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        if "rsna_class" in columns:
            films = [(film, False) for film in all_films(labels) if film.read]
        elif columns.issuperset(COLUMNS):
            films = [(_film(row), True) for row in rows]
        else:
            raise SystemExit(f"{labels} has no columns {', '.join(COLUMNS)}.")
    found = [Labelled(film, path, mine) for film, mine in films if (path := _file(folder, film.name)) is not None]
    if not found:
        raise SystemExit(f"No film of {labels} is in {folder}.")
    return found


def _film(row: dict[str, str]) -> Film:
    """Return the film of a row."""
    if row["truth"] not in TRUTHS:
        raise SystemExit(f"truth is one of {', '.join(TRUTHS)}, not {row['truth']!r}.")
    boxes = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in json.loads(row["boxes"] or "[]"))
    target = float(row["truth"] == "opacity")
    return Film(row["image"], row["patient"], row["view"].upper(), row["truth"], target, (), boxes)


def _file(folder: Path, name: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def read_image(path: Path) -> PixelImage:
    """Return a DICOM, JPEG or PNG file as what a detector sees.

    Raises:
        DetectionError: its pixels cannot be decoded.
    """
    if path.suffix in {".jpg", ".png"}:
        with Image.open(path) as picture:
            return PixelImage(np.asarray(picture.convert("L"), dtype=np.float32))
    return decode_pixels(path.read_bytes())


def square(path: Path, spec: InputSpec) -> FloatImage:
    """Return a film as the network's square before normalisation, float32 (size, size) in 0..1."""
    tensor, _ = prepare(read_image(path), spec)
    return np.asarray(tensor[0] * spec.std[0] + spec.mean[0], dtype=np.float32)


def judge(package: Package, films: list[Labelled]) -> tuple[Judged, list[str]]:
    """Return what a package says of films, and the names of those it could not look at.

    Every film gets its regions, whatever the threshold; a package that gives no map gets none.
    """
    spec, output = package.manifest.input, package.manifest.output
    if spec is None:
        raise ValueError("the package looks at whole series")
    program, device = place_program(package, "auto", 2)
    kept, scores, heats, failed = [], [], [], []
    for item in films:
        try:
            tensor, geometry = prepare(read_image(item.path), spec)
        except DetectionError:
            failed.append(item.film.name)
            continue
        with torch.inference_mode():
            logits, maps = read_output(program(torch.from_numpy(tensor)[None].to(device)), output)
        heat_logits = np.full((1, 1), -60.0, np.float32) if maps is None else maps[0].cpu().numpy()
        score, heat = probabilities(float(logits[0]), heat_logits, output)
        kept.append(_on_square(item.film, geometry) if item.on_source else item.film)
        scores.append(score)
        heats.append(heat)
    return Judged.of(kept, np.array(scores), np.stack(heats), output.region), failed


def _on_square(film: Film, geometry: Geometry) -> Film:
    """Return a film whose boxes are in pixels of the 256 x 256 square."""
    scale = SIZE / geometry.size
    boxes = []
    for x, y, w, h in film.boxes:
        (left, top), (right, bottom) = geometry.to_network(x, y), geometry.to_network(x + w, y + h)
        boxes.append((left * scale, top * scale, (right - left) * scale, (bottom - top) * scale))
    return replace(film, boxes=tuple(boxes))
