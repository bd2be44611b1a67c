"""Series to push: the bundled films and slices under fresh UIDs, as files."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support import films

FILMS = (films.OPACITY, films.NORMAL)  # DX and CR
FORWARDED = "DX"  # the modality whose images go to the archive themselves, as the rules of `hammering.site` say
LARGE = 2  # how much wider and higher a large film is: its object goes to the disk in more than one write
_SLICES = 0.3  # how many of the series are of slices
_LENGTH = slice(140, 144)  # of the rest of the File Meta Information: after preamble, DICM and a head (PS3.10 7.1)


@dataclass(frozen=True, slots=True)
class Image:
    """One file, and what it says: SOP Instance and SOP Class UID, Modality, SHA-256 of the data set."""

    path: Path
    uid: str
    sop_class: str
    modality: str
    digest: str

    @property
    def is_forwarded(self) -> bool:
        """Whether the archive is to have the image itself."""
        return self.modality == FORWARDED


def series(folder: Path, chance: random.Random, count: int) -> list[Image]:
    """Write one series of one transfer syntax, and of one study, into a folder; return it in the order of sending.

    Of slices, as many as there are different ones: a detector of whole series looks at them.
    """
    study, series_uid, patient = generate_uid(prefix=None), generate_uid(prefix=None), f"P{chance.randrange(1000)}"
    slices = chance.random() < _SLICES
    images = []
    for number in range(min(count, len(films.CT)) if slices else count):
        source = films.CT[number] if slices else chance.choice(FILMS)
        dataset = films.fresh(source, StudyInstanceUID=study, SeriesInstanceUID=series_uid, PatientID=patient)
        if not slices and chance.random() < 0.2:
            _enlarge(dataset)
        path = folder / f"{dataset.SOPInstanceUID}.dcm"
        content = films.file_bytes(dataset)
        path.write_bytes(content)
        uids = str(dataset.SOPInstanceUID), str(dataset.SOPClassUID)
        images.append(Image(path, *uids, str(dataset.Modality), digest(content)))
    return images


def digest(part10: bytes) -> str:
    """Return the SHA-256 of the data set of a Part 10 file; the File Meta Information is its writer's own."""
    rest = int.from_bytes(part10[_LENGTH], "little")
    return hashlib.sha256(part10[_LENGTH.stop + rest :]).hexdigest()


def _enlarge(film: Dataset) -> None:
    pixels = film.pixel_array.repeat(LARGE, axis=0).repeat(LARGE, axis=1)
    film.Rows, film.Columns = pixels.shape
    film.PixelData = np.ascontiguousarray(pixels).tobytes()
