"""A multi-frame image, made from the bundled slices: what a report needs of an Enhanced CT, no more."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage

from support import films
from support.ct import CTSeries

_SLICE_ONLY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation")


def enhanced_ct(frames: int = 3, **elements: object) -> Dataset:
    """An Enhanced CT as it was received: spacing and orientation are shared, each frame has a position of its own."""
    dataset = CTSeries().slice(1, **elements)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.NumberOfFrames = frames
    dataset.SharedFunctionalGroupsSequence = Sequence(
        [
            _dataset(
                PixelMeasuresSequence=_one(PixelSpacing=dataset.PixelSpacing, SliceThickness=dataset.SliceThickness),
                PlaneOrientationSequence=_one(ImageOrientationPatient=dataset.ImageOrientationPatient),
            )
        ]
    )
    x, y, z = dataset.ImagePositionPatient
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [_dataset(PlanePositionSequence=_one(ImagePositionPatient=[x, y, z + 2.5 * n])) for n in range(frames)]
    )
    for keyword in _SLICE_ONLY:
        if keyword in dataset:
            del dataset[keyword]
    dataset.PixelData = dataset.PixelData * frames
    return films.received(dataset)


def _dataset(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _one(**values: object) -> Sequence:
    return Sequence([_dataset(**values)])
