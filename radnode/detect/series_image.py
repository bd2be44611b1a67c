"""One image of a series as the series worker keeps it: where it is stored, where it lies, and a few elements."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from radnode.detect.volume import Place, place
from radnode.detect.worker import elements
from radnode.errors import DetectionError
from radnode.jobs.index import InstanceRow
from radnode.spacing import KEYWORDS as SPACING

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_KEPT = (  # of the header of each image: what the gate, the order, and the references of the report need
    "SpecificCharacterSet", "SOPClassUID", *UIDS, "PatientID", "Modality", "BodyPartExamined", "ViewPosition",
    "ViewCodeSequence", "PatientAge", "PatientBirthDate", "StudyDate", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "InstanceNumber", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "FrameOfReferenceUID", "RescaleSlope", "RescaleIntercept",
    *SPACING,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SeriesImage:
    """One image: `header` holds what is `_KEPT`, as received; `where` is None where the image does not say it."""

    row: InstanceRow
    header: Dataset
    where: Place | None

    @classmethod
    def of(cls, row: InstanceRow, header: Dataset) -> SeriesImage:
        """Return the image of a header."""
        kept = Dataset()
        for keyword in _KEPT:
            item = header.get_item(keyword) if keyword in header else None
            if item is not None:
                kept[item.tag] = item
        try:
            return cls(row, kept, place(header))
        except DetectionError:
            return cls(row, kept, None)

    def number(self) -> tuple[int, str]:
        """Return what sorts images by their Instance Number, for a start and where their places say nothing."""
        found = elements(self.header, ("InstanceNumber", "SOPInstanceUID"))
        digits = found["InstanceNumber"].strip()
        return int(digits) if digits.isdecimal() and len(digits) <= 12 else 0, found["SOPInstanceUID"]
