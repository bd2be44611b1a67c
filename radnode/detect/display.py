"""How a viewer shows a frame: the file's own window or VOI LUT, else a robust stretch, at square pixels.

It works on the display sense of `radnode.detect.pixels` (a higher value is brighter) and on a frame that was scaled to
the size of a picture first. What a file says badly is passed over, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from radnode.model import View

if TYPE_CHECKING:
    from pydicom import Dataset

    from radnode.detect.pixels import PixelImage

_Float = npt.NDArray[np.float32]

PERCENTILES = (0.5, 99.5)  # of the picture, where the file has no window that shows anything
_MIN_GRAY_SHARE = 0.05  # of the pixels that a window must leave neither black nor white
_MAX_STRETCH = 20.0  # pixels that are longer than that are taken for a mistake


@dataclass(frozen=True, slots=True)
class Display:
    """What a file says about its presentation (PS3.3 C.11.2).

    `window` is (center, width) and `function` its VOI LUT Function; `lut` maps from the value `lut_first` on to
    0..1. All of them apply to values after the Modality LUT; `turned` is what these and their display sense add up to
    where MONOCHROME1 was turned round, else None. `aspect` is the height of a pixel divided by its width.
    """

    window: tuple[float, float] | None = None
    function: str = "LINEAR"
    lut: _Float | None = None
    lut_first: int = 0
    turned: float | None = None
    aspect: float = 1.0


def read_display(dataset: Dataset, turned: float | None, spacing: tuple[float, float] | None) -> Display:
    """Return what a data set says; `spacing` is its (row, column) in mm."""
    lut, first = _read_lut(dataset)
    return Display(
        window=_read_window(dataset),
        function=str(dataset.get("VOILUTFunction") or "LINEAR"),
        lut=lut,
        lut_first=first,
        turned=turned,
        aspect=_aspect(dataset, spacing),
    )


def view(image: PixelImage, side: int) -> View:
    """Return a frame as a monitor shows it, its longer side of `side` pixels."""
    display = image.display
    height, width = image.rows * display.aspect, float(image.columns)
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    whole = (0.0, 0.0, image.columns / image.factor, image.rows / image.factor)
    smooth = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BILINEAR
    picture = Image.fromarray(image.pixels).resize(size, smooth, whole, reducing_gap=2.0)
    values = np.asarray(picture, dtype=np.float32)
    shown, window = _shown(values, display)
    gray = np.rint(shown * 255.0).astype(np.uint8)
    return View(size[1], size[0], image.rows, image.columns, gray.tobytes(), window)


def _shown(values: _Float, display: Display) -> tuple[_Float, tuple[float, float] | None]:
    """Return brightness within 0..1, and the window that made it where it was a linear one."""
    own = display.turned - values if display.turned is not None else values  # what VOI LUT and window apply to
    candidates: list[tuple[_Float, tuple[float, float] | None]] = []
    if display.lut is not None:
        place = np.clip(np.rint(own) - display.lut_first, 0, len(display.lut) - 1).astype(np.intp)
        candidates.append((display.lut[place], None))
    if display.window is not None:
        linear = display.function in {"LINEAR", "LINEAR_EXACT"}
        candidates.append((_windowed(own, *display.window, display.function), display.window if linear else None))
    for shown, window in candidates:
        if np.mean((shown > 0.02) & (shown < 0.98)) >= _MIN_GRAY_SHARE:
            return (1.0 - shown if display.turned is not None else shown), window
    low, high = (float(value) for value in np.percentile(own, PERCENTILES))
    window = ((low + high) / 2, max(high - low, 1.0))
    shown = _windowed(own, *window, "LINEAR_EXACT")
    return (1.0 - shown if display.turned is not None else shown), window


def _windowed(values: _Float, center: float, width: float, function: str) -> _Float:
    """Return values through a window, within 0..1 (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        power = np.clip(-4.0 * (values - center) / width, -60.0, 60.0)
        return np.asarray(1.0 / (1.0 + np.exp(power)), dtype=np.float32)
    if function == "LINEAR" and width > 1.0:
        center, width = center - 0.5, width - 1.0
    return np.asarray(np.clip((values - center) / width + 0.5, 0.0, 1.0), dtype=np.float32)


def _read_window(dataset: Dataset) -> tuple[float, float] | None:
    """Return the first window, which viewers show first; None where there is none that can be used."""
    try:
        center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    except (ValueError, TypeError):
        return None
    return (center, width) if math.isfinite(center) and math.isfinite(width) and width > 0 else None


def _first(value: Any) -> float:
    """Return the first number of a value.

    Raises:
        ValueError, TypeError: there is none.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return float(value[0] if several and len(value) else value)


def _read_lut(dataset: Dataset) -> tuple[_Float | None, int]:
    """Return the first VOI LUT, within 0..1, and the value its first entry stands for (PS3.3 C.11.2.1.1)."""
    try:
        item = dataset.VOILUTSequence[0]
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, bytes):
            little = dataset.original_encoding[1] is not False
            data = np.frombuffer(data, ("<u2" if little else ">u2") if len(data) >= 2 * (count or 1 << 16) else "u1")
        entries = np.asarray(data, dtype=np.float32)[: count or 1 << 16]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None, 0
    if len(entries) < 2 or not 8 <= bits <= 16:
        return None, 0
    return np.clip(entries / np.float32(2**bits - 1), 0.0, 1.0), first


def _aspect(dataset: Dataset, spacing: tuple[float, float] | None) -> float:
    """Return the height of a pixel divided by its width, 1.0 where the file does not say or says nonsense."""
    try:
        row, column = spacing or (float(value) for value in dataset.PixelAspectRatio)
        aspect = row / column
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return 1.0
    return aspect if math.isfinite(aspect) and 1 / _MAX_STRETCH <= aspect <= _MAX_STRETCH else 1.0
