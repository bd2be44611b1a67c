"""Series to push: the bundled films and slices under fresh UIDs, as files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support import films

FILMS = (films.OPACITY, films.NORMAL)
LARGE = 2  # how much wider and higher a large film is: its object goes to the disk in more than one write


@dataclass(frozen=True, slots=True)
class Image:
    """One file and the SOP Instance UID in it."""

    path: Path
    uid: str


def series(folder: Path, chance: random.Random, count: int) -> list[Image]:
    """Write one series of one transfer syntax, and of one study, into a folder; return it in the order of sending."""
    study, series_uid, patient = generate_uid(prefix=None), generate_uid(prefix=None), f"P{chance.randrange(1000)}"
    slices = chance.random() < 0.3
    images = []
    for number in range(count):
        source = films.CT[number % len(films.CT)] if slices else chance.choice(FILMS)
        dataset = films.fresh(source, StudyInstanceUID=study, SeriesInstanceUID=series_uid, PatientID=patient)
        if not slices and chance.random() < 0.2:
            _enlarge(dataset)
        path = folder / f"{dataset.SOPInstanceUID}.dcm"
        path.write_bytes(films.file_bytes(dataset))
        images.append(Image(path, str(dataset.SOPInstanceUID)))
    return images


def _enlarge(film: Dataset) -> None:
    pixels = film.pixel_array.repeat(LARGE, axis=0).repeat(LARGE, axis=1)
    film.Rows, film.Columns = pixels.shape
    film.PixelData = np.ascontiguousarray(pixels).tobytes()
