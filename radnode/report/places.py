"""Where a region lies: on which image or frame, how large its pixels are, and where that is in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from radnode.model import Region
from radnode.report import codes, items, received
from radnode.report.codes import Concept
from radnode.spacing import Basis, Spacing, judge

# Of a multi-frame image, the functional groups (PS3.3 C.7.6.16.2) that hold what another image has itself.
_GROUPS = {
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
}
_MAX_TURN = 0.01  # by how much the directions of a plane may fail to be unit vectors at a right angle
_FAR = 1e6  # mm; a patient is nearer

Point = tuple[float, float]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane of a slice in its frame of reference (PS3.3 C.7.6.2.1.1).

    `corner` is (x, y, z) in mm of the top left corner of the first pixel; `column` and `row` are the steps in mm from
    a column to the next and from a row to the next.
    """

    FrameOfReferenceUID: str
    corner: Vector
    column: Vector
    row: Vector

    def outline(self, points: Sequence[Point]) -> list[tuple[float, float, float]]:
        """(x, y, z) in mm of (column, row) points, the first one again at the end."""
        flat = np.asarray([*points, points[0]])
        found = self.corner + flat[:, :1] * self.column + flat[:, 1:] * self.row
        return [(float(x), float(y), float(z)) for x, y, z in found]


@dataclass(frozen=True, slots=True)
class Place:
    """The image or frame that a region is on, or the first image where a finding has none.

    `reference` is the item that names it, `plane` None where a frame of reference cannot be used.
    """

    reference: bytes
    spacing: Spacing
    plane: Plane | None
    laterality: Concept | None

    @classmethod
    def of(cls, sources: Sequence[Dataset], region: Region | None) -> Place:
        """Of one source, `Region.frame` is a frame of a multi-frame image; of several it says which (from 1)."""
        frame = None if region is None else region.frame
        source = sources[(frame or 1) - 1] if len(sources) > 1 else sources[0]
        if len(sources) > 1:
            frame = None
        reader = Reader(source, frame)
        spacing = judge(reader.text)
        side = received.text(source, "ImageLaterality") if received.text(source, "Modality") == "MG" else ""
        return cls(
            items.reference(received.text(source, "SOPClassUID"), received.text(source, "SOPInstanceUID"), frame),
            spacing,
            _plane(reader, spacing) if region is not None else None,
            codes.SIDES.get(side),
        )

    def extent(self, region: Region) -> float:
        """The longer side of a box, the largest distance between two points of a contour; in pixels."""
        return _extent(region, (1.0, 1.0))

    def extent_mm(self, region: Region) -> float:
        """The same in mm.

        Raises:
            ValueError: the image has no spacing.
        """
        if self.spacing.mm is None:
            raise ValueError("the image has no spacing")
        return _extent(region, self.spacing.mm)


class Reader:
    """Reads elements of an image, and those of one frame (from 1) where they are in functional groups."""

    def __init__(self, source: Dataset, frame: int | None) -> None:
        self._source = source
        self._frame = frame

    def text(self, keyword: str) -> str:
        """Return the value of an element as `received.text` does."""
        found = received.text(self._source, keyword)
        if found or keyword not in _GROUPS:
            return found
        for macros in self._macros:
            for macro in received.items(macros, _GROUPS[keyword]):
                if found := received.text(macro, keyword):
                    return found
        return ""

    @cached_property
    def _macros(self) -> list[Dataset]:
        frames = received.items(self._source, "PerFrameFunctionalGroupsSequence")
        number = (self._frame or 1) - 1
        return frames[number : number + 1] + received.items(self._source, "SharedFunctionalGroupsSequence")


def _plane(reader: Reader, spacing: Spacing) -> Plane | None:
    """The plane of an image, None unless it is a slice that says where it is."""
    FrameOfReferenceUID = reader.text("FrameOfReferenceUID")
    position = _numbers(reader.text("ImagePositionPatient"), 3)
    directions = _numbers(reader.text("ImageOrientationPatient"), 6)
    if spacing.basis is not Basis.SLICE or spacing.mm is None:
        return None
    if not FrameOfReferenceUID or position is None or directions is None:
        return None
    across, down = directions[:3], directions[3:]
    norms = np.asarray([across @ across, down @ down, across @ down])
    if np.abs(norms - (1.0, 1.0, 0.0)).max() > _MAX_TURN or np.abs(position).max() > _FAR:
        return None
    column, row = across * spacing.mm[1], down * spacing.mm[0]
    # Image Position is the centre of the first pixel, (0.5, 0.5) in the coordinates of a region.
    return Plane(FrameOfReferenceUID, position - 0.5 * column - 0.5 * row, column, row)


def _numbers(value: str, count: int) -> Vector | None:
    try:
        found = np.asarray([float(part) for part in value.split("\\")])
    except ValueError:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _extent(region: Region, spacing: tuple[float, float]) -> float:
    """The size of a region whose pixels measure `spacing` (between rows, between columns)."""
    points = np.asarray(region.points) * (spacing[1], spacing[0])  # (column, row), shape (N, 2)
    if region.kind == "box":
        return float(np.ptp(points, axis=0).max())
    return max(float(np.hypot(*(points - point).T).max()) for point in points)
