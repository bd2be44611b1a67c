"""How large a pixel is, and where that holds (PS3.3 section 10.7.1): one rule for what is measured and for its report.

In a slice Pixel Spacing holds in the patient. A projection magnifies: the spacing at the detector says nothing about
the patient until it is calibrated, or until somebody has estimated the magnification.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

# Modality (0008,0060) of images that are projections (PS3.3 C.7.3.1.1.1).
PROJECTIONS = frozenset({"CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA", "DR", "XC"})
KEYWORDS = (
    "Modality", "PixelSpacing", "ImagerPixelSpacing", "PixelSpacingCalibrationType",
    "EstimatedRadiographicMagnificationFactor",
)  # fmt: skip
_MAX_MM = 100.0  # of one pixel; more is nonsense
_MAX_MAGNIFICATION = 10.0


class Basis(enum.StrEnum):
    """What a size in mm rests on; the value is the sentence that a report says."""

    SLICE = "Size in the plane of the slice, by Pixel Spacing."
    FIDUCIAL = "Size by Pixel Spacing calibrated with an object of known size; it holds at the depth of that object."
    GEOMETRY = "Size by Pixel Spacing corrected for an assumed geometric magnification."
    CALIBRATED = "Size by Pixel Spacing that differs from Imager Pixel Spacing; how it was calibrated is not stated."
    MAGNIFICATION = "Size by Imager Pixel Spacing and the Estimated Radiographic Magnification Factor."
    DETECTOR = "Size in pixels of the image: its spacing is that at the detector, the magnification is not known."
    UNSTATED = "Size in pixels of the image: where its Pixel Spacing holds is not stated."
    NONE = "Size in pixels of the image: it states no spacing."

    @property
    def in_patient(self) -> bool:
        """Whether a length in mm means the patient."""
        return self not in {Basis.DETECTOR, Basis.UNSTATED, Basis.NONE}


@dataclass(frozen=True, slots=True)
class Spacing:
    """`mm` is (between rows, between columns) and holds as `basis` says; None where the image says nothing usable."""

    basis: Basis
    mm: tuple[float, float] | None = None


def judge(text: Callable[[str], str]) -> Spacing:
    """The spacing of an image; `text` gives the value of an element, "" for none and "\\" between several."""
    pixel, imager = pair(text("PixelSpacing")), pair(text("ImagerPixelSpacing"))
    projected = text("Modality").strip() in PROJECTIONS
    how = text("PixelSpacingCalibrationType").strip()
    if pixel is not None and not projected and imager is None:
        return Spacing(Basis.SLICE, pixel)
    if pixel is not None and how in {"FIDUCIAL", "GEOMETRY"}:
        return Spacing(Basis[how], pixel)
    if pixel is not None and imager is not None and pixel != imager:
        return Spacing(Basis.CALIBRATED, pixel)
    if imager is not None:
        factor = _number(text("EstimatedRadiographicMagnificationFactor"))
        if factor is not None and 1.0 <= factor <= _MAX_MAGNIFICATION:
            return Spacing(Basis.MAGNIFICATION, (imager[0] / factor, imager[1] / factor))
        return Spacing(Basis.DETECTOR, imager)
    return Spacing(Basis.NONE) if pixel is None else Spacing(Basis.UNSTATED, pixel)


def pair(value: str) -> tuple[float, float] | None:
    """Two positive numbers of mm that a pixel can have, else None."""
    found = [_number(part) for part in value.split("\\")]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    row, column = found[0], found[1]
    return (row, column) if 0 < row < _MAX_MM and 0 < column < _MAX_MM else None


def _number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
