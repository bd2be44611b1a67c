"""The films, what is known about each, and how patients are split."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from radnode.detect.manifest import InputSpec
from radnode.detect.pixels import FloatImage, PixelImage, prepare

SIZE = 256
CELLS = 16  # the heat map is 16 x 16
SOURCE_SIZE = 1024  # boxes of RSNA and NIH are in pixels of the 1024 x 1024 film
FOLDS = 5

INPUT = InputSpec(size=SIZE, percentiles=(1.0, 99.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# Patients that are neither trained on nor measured with: sample films are chosen among them.
HELD_OUT = frozenset({"00013731", "00020239", "00010357", "00026041", "00002102", "00003043", "00030774", "00011254"})

# Two of them, chosen after the model was seen to get them right, ship with the project as sample films.
SAMPLES = ("00026041_000", "00003043_000")

LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
# How often a film with this text-mined label shows an opacity as the radiologists drew them (a prior, not a fit).
SOFT_TARGET = {
    "Pneumonia": 0.6, "Consolidation": 0.7, "Infiltration": 0.5, "Edema": 0.6, "Atelectasis": 0.4,
    "Effusion": 0.4, "Mass": 0.4, "Nodule": 0.2, "Fibrosis": 0.25, "Pleural_Thickening": 0.2,
    "Pneumothorax": 0.2, "Cardiomegaly": 0.15, "Emphysema": 0.1, "Hernia": 0.1, "No Finding": 0.05,
}  # fmt: skip
WEAK = frozenset({"Pneumonia", "Consolidation", "Infiltration", "Edema"})
BOXED_BY_NIH = frozenset({"Pneumonia", "Infiltrate", "Infiltration", "Consolidation"})

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Film:
    """One film. Boxes are (x, y, width, height) in pixels of the 256 x 256 input."""

    name: str
    patient: str
    view: str
    group: str
    """opacity, normal, abnormal (RSNA readers) or weak, clear, other (text-mined labels)."""
    target: float
    labels: tuple[bool, ...]
    boxes: tuple[Box, ...]

    @property
    def read(self) -> bool:
        """Whether radiologists read this film for the RSNA challenge."""
        return self.group in {"opacity", "normal", "abnormal"}


def all_films(labels: Path) -> list[Film]:
    """Return every film of the table, in its order."""
    with labels.open(newline="", encoding="utf-8") as file:
        return [_film(row) for row in csv.DictReader(file)]


def load_films(labels: Path) -> list[Film]:
    """Return every film of the table whose patient is not held out, in the table's order."""
    return [film for film in all_films(labels) if film.patient not in HELD_OUT]


def held_out_films(labels: Path) -> list[Film]:
    """Return the films of the held-out patients."""
    return [film for film in all_films(labels) if film.patient in HELD_OUT]


def _film(row: dict[str, str]) -> Film:
    named = row["nih_labels"].split("|")
    scale = SIZE / SOURCE_SIZE
    rsna = json.loads(row["rsna_boxes_xywh_1024"] or "[]")
    nih = json.loads(row["nih_boxes_label_xywh_1024"] or "[]")
    boxes = [box for box in rsna] if row["rsna_class"] else [box[1:] for box in nih if box[0] in BOXED_BY_NIH]
    group, target = _group(row["rsna_class"], named, bool(boxes))
    return Film(
        name=Path(row["image"]).stem,
        patient=row["patient"],
        view=row["view"],
        group=group,
        target=target,
        labels=tuple(label in named for label in LABELS),
        boxes=tuple((x * scale, y * scale, w * scale, h * scale) for x, y, w, h in boxes),
    )


def _group(rsna_class: str, named: Sequence[str], boxed: bool) -> tuple[str, float]:
    """Return group and image target."""
    match rsna_class:
        case "Lung Opacity":
            return "opacity", 1.0
        case "Normal":
            return "normal", 0.0
        case "No Lung Opacity / Not Normal":
            return "abnormal", 0.0
    target = max(SOFT_TARGET[label] for label in named)
    if boxed:
        return "weak", 0.9
    if WEAK & set(named):
        return "weak", target
    return ("clear", target) if named == ["No Finding"] else ("other", target)


def split(films: Sequence[Film], seed: int) -> np.ndarray:
    """Return the fold (0..4) of each film, shape (films,): whole patients, stratified by view and class."""
    rng = np.random.default_rng(seed)
    order = {"opacity": 0, "normal": 1, "abnormal": 2, "weak": 3, "clear": 4, "other": 5}
    strata: dict[str, tuple[int, str]] = {}
    for film in films:
        key = (order[film.group], film.view)
        strata[film.patient] = min(strata.get(film.patient, key), key)
    fold_of: dict[str, int] = {}
    for stratum in sorted(set(strata.values())):
        patients = sorted(patient for patient, key in strata.items() if key == stratum)
        start = int(rng.integers(FOLDS))
        for index, position in enumerate(rng.permutation(len(patients))):
            fold_of[patients[position]] = (start + index) % FOLDS
    return np.array([fold_of[film.patient] for film in films])


def read_film(folder: Path, film: Film) -> FloatImage:
    """Return the film as the network's square before normalisation, float32 (256, 256) in 0..1."""
    with Image.open(folder / f"{film.name}.jpg") as picture:
        image = PixelImage(np.asarray(picture.convert("L"), dtype=np.float32))
    tensor, _ = prepare(image, INPUT)
    return tensor[0] * np.float32(INPUT.std[0]) + np.float32(INPUT.mean[0])


def coverage(boxes: Sequence[Box]) -> FloatImage:
    """Return the share of each heat-map cell that boxes cover, float32 (16, 16)."""
    fine = np.zeros((SIZE, SIZE), dtype=np.float32)
    for x, y, w, h in boxes:
        fine[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = 1.0
    step = SIZE // CELLS
    return fine.reshape(CELLS, step, CELLS, step).mean(axis=(1, 3), dtype=np.float32)
