"""Secondary objects of the bundled films and slices, made as a node makes them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from radnode.detect.display import view
from radnode.detect.pixels import decode_pixels
from radnode.model import VIEW_SIDE, Analysis
from radnode.report.secondary import build_secondary
from radnode.report.secondary_header import Origin
from radnode.settings import SECONDARY_KINDS
from support import films
from support.analyses import ACCEPTED_AT, FINDING, report


def secondary(
    images: Dataset | Sequence[Dataset], analysis: Analysis = FINDING, kinds: Sequence[str] = SECONDARY_KINDS
) -> dict[str, Dataset]:
    """The secondary objects of images by kind and number; of images without pixels no picture."""
    images = [images] if isinstance(images, Dataset) else images
    files = [films.file_bytes(image) for image in images]
    headers = [pydicom.dcmread(io.BytesIO(part10), stop_before_pixels=True) for part10 in files]
    views = {
        number: view(decode_pixels(files[number - 1]), VIEW_SIDE)
        for number in analysis.pictured(len(images))
        if "PixelData" in images[number - 1]
    }
    origin = Origin(headers, analysis, ACCEPTED_AT, "0.1.0", "RADNODE")
    made = build_secondary(origin, kinds, views, report(headers, analysis))
    return {f"{kind}{item.InstanceNumber}": item for kind, item in made}


def slab(**elements: object) -> list[Dataset]:
    """The bundled CT series, under its own UIDs."""
    return [_with(path, elements) for path in films.CT]


def _with(path: Path, elements: dict[str, object]) -> Dataset:
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset
