"""From a DICOM file to the numbers a network sees. Without torch, so that the decoding child stays small."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from radnode.detect.display import Display, read_display
from radnode.errors import DetectionError
from radnode.model import Reason, View
from radnode.spacing import judge

if TYPE_CHECKING:
    from pydicom import Dataset

    from radnode.detect.manifest import InputSpec

MAX_PIXELS = 100_000_000

SpacingPlane = Literal["patient", "detector"]
FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PixelImage:
    """One grayscale frame in display sense: a higher value is brighter (denser tissue in an X-ray).

    `pixels` is float32 of shape (source rows, source columns), or smaller by the whole number `factor` where
    the image was reduced on its way (`reduce`). `display` says how a viewer shows it, `view` is it as shown, where one
    was asked for. `spacing` is (row, column) of the source in mm, None where the file does not say; `spacing_at` is
    "patient" where `radnode.spacing` says that it holds there, "detector" for what is measured at the detector, which
    magnifies the patient, or where the file does not say.
    """

    pixels: FloatImage
    spacing: tuple[float, float] | None = None
    spacing_at: SpacingPlane | None = None
    source: tuple[int, int] | None = None
    factor: int = 1
    display: Display = field(default_factory=Display)
    view: View | None = None

    @property
    def rows(self) -> int:
        """Number of rows of the source image."""
        return self.source[0] if self.source else int(self.pixels.shape[0])

    @property
    def columns(self) -> int:
        """Number of columns of the source image."""
        return self.source[1] if self.source else int(self.pixels.shape[1])

    @property
    def patient_spacing(self) -> tuple[float, float] | None:
        """(row, column) spacing in mm where it holds in the patient, else None."""
        return self.spacing if self.spacing_at == "patient" else None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a source image lies in the `size` x `size` square of the network, in pixels from the top left corner.

    The image is scaled to `scaled_rows` x `scaled_columns` and put at (`left`, `top`) of the square.
    """

    rows: int
    columns: int
    scaled_rows: int
    scaled_columns: int
    top: int
    left: int
    size: int

    @classmethod
    def fit(cls, rows: int, columns: int, size: int) -> Geometry:
        """Return the largest centred placement of `rows` x `columns` in a `size` x `size` square."""
        longest = max(rows, columns)
        scaled_rows = max(1, round(rows * size / longest))
        scaled_columns = max(1, round(columns * size / longest))
        top, left = (size - scaled_rows) // 2, (size - scaled_columns) // 2
        return cls(rows, columns, scaled_rows, scaled_columns, top, left, size)

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """Return (column, row) in the source for (x, y) in the square, clipped to the source image."""
        column = (x - self.left) * self.columns / self.scaled_columns
        row = (y - self.top) * self.rows / self.scaled_rows
        return min(max(column, 0.0), float(self.columns)), min(max(row, 0.0), float(self.rows))

    def to_network(self, column: float, row: float) -> tuple[float, float]:
        """Return (x, y) in the square for (column, row) in the source."""
        x = column * self.scaled_columns / self.columns + self.left
        y = row * self.scaled_rows / self.rows + self.top
        return x, y


def reduce(image: PixelImage, size: int) -> PixelImage:
    """Return the image by the largest whole factor smaller, by means of blocks, that leaves it at least 2 x `size`.

    `prepare` does this first, so that reducing an image before it crosses a pipe changes no result.
    """
    factor = max(image.rows, image.columns) // (2 * size)
    if factor < 2 or image.factor > 1:
        return image
    smaller = np.asarray(Image.fromarray(image.pixels).reduce(factor), dtype=np.float32)
    return replace(image, pixels=smaller, source=(image.rows, image.columns), factor=factor)


def scale(image: PixelImage, size: int) -> tuple[FloatImage, Geometry]:
    """Return the image as it fits a `size` x `size` square, float32 (scaled rows, scaled columns), and its geometry.

    Reduce by a whole factor, then scale (antialiased).
    """
    image = reduce(image, size)
    geometry = Geometry.fit(image.rows, image.columns, size)
    whole = (0.0, 0.0, image.columns / image.factor, image.rows / image.factor)  # the last block may be a part
    target = geometry.scaled_columns, geometry.scaled_rows
    picture = Image.fromarray(image.pixels).resize(target, Image.Resampling.BILINEAR, whole)
    return np.asarray(picture, dtype=np.float32), geometry


def prepare(image: PixelImage, spec: InputSpec) -> tuple[FloatImage, Geometry]:
    """Return the network's input, float32 (channels, size, size), and its geometry. Training uses this very function.

    Scale to fit the square, stretch between two percentiles of the scaled image or a fixed window, pad with black,
    normalise each channel.

    Raises:
        DetectionError: PIXELS_UNDECODABLE when the image holds no finite contrast.
    """
    scaled, geometry = scale(image, spec.size)
    low, high = spec.window or np.percentile(scaled, spec.percentiles or (0.0, 100.0))
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        raise DetectionError(Reason.PIXELS_UNDECODABLE)
    square = np.zeros((spec.size, spec.size), dtype=np.float32)
    square[
        geometry.top : geometry.top + geometry.scaled_rows, geometry.left : geometry.left + geometry.scaled_columns
    ] = np.clip((scaled - low) / (high - low), 0.0, 1.0)
    mean = np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray((square[None] - mean) / std), geometry


def decode_pixels(part10: bytes) -> PixelImage:
    """Return the one grayscale frame of a DICOM file (PS3.10) in display sense.

    Stored values are masked to Bits Stored, pass the modality LUT or rescale, and are turned round for
    MONOCHROME1. Pixel padding takes the darkest value that is not padding.

    Raises:
        DetectionError: MULTI_FRAME, UNSUPPORTED_PHOTOMETRIC, or PIXELS_UNDECODABLE for everything that is wrong
            with the pixel data: lengths, bits, transfer syntax, over 100 Mpx, a codec that raises.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(part10))
            _check_shape(dataset)
            return _to_image(dataset, pixel_array(dataset, raw=True))
    except DetectionError:
        raise
    except Exception as error:  # parsers and codecs raise whatever they like; the answer is the same
        raise DetectionError(Reason.PIXELS_UNDECODABLE) from error


def _check_shape(dataset: Dataset) -> None:
    """Refuse, before anything is allocated, what is not one grayscale frame of honest size."""
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise DetectionError(Reason.MULTI_FRAME)
    if dataset.SamplesPerPixel != 1 or dataset.PhotometricInterpretation not in {"MONOCHROME1", "MONOCHROME2"}:
        raise DetectionError(Reason.UNSUPPORTED_PHOTOMETRIC)
    pixels = dataset.Rows * dataset.Columns
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    sound = (
        0 < pixels <= MAX_PIXELS
        and allocated in {8, 16, 32}
        and 1 <= stored <= allocated
        and dataset.HighBit == stored - 1  # PS3.5 section 8.1.1
        and dataset.PixelRepresentation in {0, 1}
    )
    if not sound:
        raise DetectionError(Reason.PIXELS_UNDECODABLE)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        length = pixels * allocated // 8
        if len(dataset.PixelData) != length + length % 2:
            raise DetectionError(Reason.PIXELS_UNDECODABLE)


def _to_image(dataset: Dataset, stored: npt.NDArray[Any]) -> PixelImage:
    """Return the image in display sense of decoded stored values, shape (rows, columns)."""
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise DetectionError(Reason.PIXELS_UNDECODABLE)
    stored = _without_unused_bits(stored, dataset.BitsStored)
    padding = _padding(dataset, stored)
    if "ModalityLUTSequence" in dataset:
        values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    else:
        values = stored.astype(np.float32)
        slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
        if (slope, intercept) != (1.0, 0.0):
            values = values * np.float32(slope) + np.float32(intercept)
    turned = None
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        turned = float(values.max() + values.min())
        values = values.max() + values.min() - values
    if not np.isfinite(values).all():
        raise DetectionError(Reason.PIXELS_UNDECODABLE)
    if padding is not None and padding.any() and not padding.all():
        values[padding] = values[~padding].min()
    spacing, spacing_at = _spacing(dataset)
    return PixelImage(values, spacing, spacing_at, display=read_display(dataset, turned, spacing))


def _without_unused_bits(stored: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return values whose bits above Bits Stored, where old files keep overlays, are dropped."""
    unused = stored.dtype.itemsize * 8 - bits
    if unused <= 0:
        return stored
    return np.asarray(np.right_shift(np.left_shift(stored, unused), unused))


def _padding(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return which pixels are padding (PS3.3 C.7.5.1.1.2), None where the file names no padding value."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, SpacingPlane | None]:
    """Return spacing and where it holds."""

    def text(keyword: str) -> str:
        value = dataset.get(keyword)
        return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")

    found = judge(text)
    if found.mm is None:
        return None, None
    return found.mm, "patient" if found.basis.in_patient else "detector"
