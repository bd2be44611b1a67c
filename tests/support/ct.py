"""CT series of any length, made from the bundled slices: new UIDs and positions, a small matrix, something bright."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from support import films

STEP_MM = 2.5
BRIGHT_HU = 2900


class CTSeries:
    """One series whose slices are made one by one, any of them at any time.

    `bright` names the slices (from 1, in order along the normal) with a block of `BRIGHT_HU` at (32, 32) to (48, 40)
    in (column, row); `elements` are set on every slice.
    """

    def __init__(self, *, bright: Collection[int] = (), **elements: object) -> None:
        self.study, self.series, self.frame = (generate_uid(prefix=None) for _ in range(3))
        self._bright = bright
        self._elements = elements

    def slice(self, number: int, **elements: object) -> Dataset:
        """Return a slice; its number is its place along the normal, and its Instance Number counts the other way."""
        dataset = films.fresh(films.CT[0], **{**self._elements, **elements})
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.study, self.series
        dataset.FrameOfReferenceUID = self.frame
        dataset.ImagePositionPatient = [-166.0, -171.7, -207.6 + STEP_MM * number]
        dataset.SliceLocation = dataset.ImagePositionPatient[2]
        dataset.InstanceNumber = 1000 - number
        pixels = _pixels(number % len(films.CT)).copy()
        if number in self._bright:
            pixels[32:40, 32:48] = BRIGHT_HU - int(dataset.RescaleIntercept)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelSpacing = [value * 8 for value in dataset.PixelSpacing]
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = False
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        return dataset

    def slices(self, first: int, last: int) -> list[Dataset]:
        """Return the slices from `first` to `last`, both included."""
        return [self.slice(number) for number in range(first, last + 1)]


@cache
def _pixels(index: int) -> npt.NDArray[np.int16]:
    """A bundled slice as 64 x 64 stored values."""
    return np.asarray(pydicom.dcmread(films.CT[index]).pixel_array[::8, ::8], dtype=np.int16)
