"""From the images of a series to the volume a network sees. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from radnode.detect.pixels import FloatImage, Geometry, PixelImage, scale
from radnode.errors import DetectionError
from radnode.model import Reason

if TYPE_CHECKING:
    from pydicom import Dataset

    from radnode.detect.manifest import VolumeSpec

MIN_STEP_MM = 0.01  # two slices that are closer are two images of one place
MAX_TURN = 0.01  # by how much a direction cosine may differ between slices of one volume
MAX_STRETCH = 0.01  # by what share pixel spacing may


@dataclass(frozen=True, slots=True)
class Place:
    """Where one image lies in the patient (PS3.3 C.7.6.2.1.1).

    `orientation` holds the direction cosines of a row and of a column, `position` the centre of the first pixel in mm,
    `spacing` (row, column) in mm; `frame_of_reference` is "" where the image does not say.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    frame_of_reference: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A series as a network sees it.

    `pixels` is float32 (slices, size, size) within 0..1, slices in order along the normal. `steps` is (between
    slices, between rows, between columns of the volume) in mm. `geometry` says where every slice lies in its square,
    `spacing` is (row, column) of the source in mm.
    """

    pixels: FloatImage
    steps: tuple[float, float, float]
    geometry: Geometry
    spacing: tuple[float, float]


def place(header: Dataset) -> Place:
    """Return where an image lies.

    Raises:
        DetectionError: NOT_A_VOLUME where it does not say so, or says nonsense.
    """
    try:
        found = Place(
            rows=int(header.Rows),
            columns=int(header.Columns),
            spacing=(float(header.PixelSpacing[0]), float(header.PixelSpacing[1])),
            orientation=_numbers(header.ImageOrientationPatient, 6),
            position=_numbers(header.ImagePositionPatient, 3),
            frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
        )
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError) as error:
        raise DetectionError(Reason.NOT_A_VOLUME) from error
    normal = np.linalg.norm(_normal(found))
    if not (abs(normal - 1.0) <= MAX_TURN and min(found.spacing) > 0 and np.isfinite(found.spacing).all()):
        raise DetectionError(Reason.NOT_A_VOLUME)
    return found


def in_order(places: Sequence[Place]) -> tuple[list[int], float]:
    """Return the indices of the images in rising order along the normal, and the median step between them in mm.

    The normal is that of PS3.3 C.7.6.2.1.1: the cross product of row and column direction.

    Raises:
        DetectionError: NOT_A_VOLUME: two images lie in one place, or differ in size, spacing, orientation or frame of
            reference.
    """
    first = places[0]
    if not all(_alike(first, other) for other in places):
        raise DetectionError(Reason.NOT_A_VOLUME)
    distances = np.asarray([item.position for item in places]) @ _normal(first)
    order = np.argsort(distances, kind="stable")
    steps = np.diff(distances[order])
    if len(steps) and not steps.min() >= MIN_STEP_MM:
        raise DetectionError(Reason.NOT_A_VOLUME)
    return [int(index) for index in order], float(np.median(steps)) if len(steps) else 0.0


class VolumeBuilder:
    """Fills a volume slice by slice, so that no more than one decoded image is held beside it."""

    def __init__(self, spec: VolumeSpec, slices: int, step_mm: float) -> None:
        self._spec = spec
        self._step = step_mm
        self._pixels = np.zeros((slices, spec.size, spec.size), dtype=np.float32)
        self._last: tuple[Geometry, tuple[float, float]] | None = None

    def put(self, index: int, image: PixelImage) -> None:
        """Put an image, with its modality LUT applied, into its slice.

        Raises:
            DetectionError: NOT_A_VOLUME where its spacing does not hold in the patient.
        """
        if image.patient_spacing is None:
            raise DetectionError(Reason.NOT_A_VOLUME)
        scaled, geometry = scale(image, self._spec.size)
        low, high = self._spec.window
        rows = slice(geometry.top, geometry.top + geometry.scaled_rows)
        columns = slice(geometry.left, geometry.left + geometry.scaled_columns)
        self._pixels[index, rows, columns] = np.clip((scaled - low) / (high - low), 0.0, 1.0)
        self._last = geometry, image.patient_spacing

    def finish(self) -> Volume:
        """Return the volume; every slice was put."""
        if self._last is None:
            raise ValueError("A volume has at least one slice.")
        geometry, (row_mm, column_mm) = self._last
        across = row_mm * geometry.rows / geometry.scaled_rows, column_mm * geometry.columns / geometry.scaled_columns
        return Volume(self._pixels, (self._step, *across), geometry, (row_mm, column_mm))


def _alike(one: Place, other: Place) -> bool:
    """Say whether two images can be slices of one volume."""
    return (
        (one.rows, one.columns, one.frame_of_reference) == (other.rows, other.columns, other.frame_of_reference)
        and np.allclose(one.orientation, other.orientation, rtol=0.0, atol=MAX_TURN)
        and np.allclose(one.spacing, other.spacing, rtol=MAX_STRETCH, atol=0.0)
    )


def _normal(item: Place) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the normal of an image, shape (3,)."""
    return np.cross(np.asarray(item.orientation[:3]), np.asarray(item.orientation[3:]))


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    """Return `count` finite numbers.

    Raises:
        ValueError: they are not.
    """
    found = tuple(float(number) for number in value)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"not {count} numbers")
    return found
