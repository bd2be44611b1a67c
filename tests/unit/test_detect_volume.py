"""Slices in order along the normal, and the volume that they fill."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from support.ct import STEP_MM, CTSeries

from radnode.detect.manifest import VolumeSpec
from radnode.detect.pixels import PixelImage
from radnode.detect.volume import VolumeBuilder, in_order, place
from radnode.errors import DetectionError
from radnode.model import Reason

SPEC = VolumeSpec(size=64, window=(-1000.0, 1000.0), min_slices=2, max_slices=10)


def header(position: tuple[float, ...], orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)) -> Dataset:
    dataset = Dataset()
    dataset.Rows = dataset.Columns = 64
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.ImageOrientationPatient = list(orientation)
    dataset.ImagePositionPatient = list(position)
    return dataset


def test_slices_are_put_in_order_whatever_order_they_came_in() -> None:
    slices = CTSeries().slices(1, 9)
    random.Random(1).shuffle(slices)  # noqa: S311 (not a secret)
    order, step = in_order([place(item) for item in slices])
    assert [slices[index].InstanceNumber for index in order] == list(range(999, 990, -1))
    assert step == pytest.approx(STEP_MM)


@pytest.mark.parametrize(
    ("orientation", "axis"),
    [((1, 0, 0, 0, 1, 0), (0, 0, 1)), ((0, 1, 0, 0, 0, -1), (-1, 0, 0)), ((1, 0, 0, 0, 0, -1), (0, 1, 0))],
    ids=["axial", "sagittal", "coronal"],
)
def test_order_rises_along_the_cross_product_of_row_and_column(orientation: tuple[float, ...], axis: Any) -> None:
    places = [place(header(tuple(3.0 * number * np.asarray(axis)), orientation)) for number in (2, 0, 1)]
    assert in_order(places) == ([1, 2, 0], pytest.approx(3.0))


def test_step_is_the_median_one() -> None:
    _, step = in_order([place(header((0, 0, z))) for z in (0, 1, 2, 3, 13)])
    assert step == 1.0


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", [0, 0, float("nan")]),
        ("ImagePositionPatient", None),
        ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]),
        ("ImageOrientationPatient", [1, 0, 0]),
        ("PixelSpacing", [0.0, 0.5]),
        ("PixelSpacing", [0.5]),
        ("Rows", None),
    ],
)
def test_image_that_does_not_say_where_it_lies_is_no_slice(keyword: str, value: Any) -> None:
    dataset = header((0, 0, 0))
    setattr(dataset, keyword, value)
    with pytest.raises(DetectionError) as caught:
        place(dataset)
    assert caught.value.reason is Reason.NOT_A_VOLUME


def test_two_images_in_one_place_are_no_volume() -> None:
    with pytest.raises(DetectionError) as caught:
        in_order([place(header((0, 0, z))) for z in (0, 1, 1, 2)])
    assert caught.value.reason is Reason.NOT_A_VOLUME


def test_volume_holds_each_slice_windowed_and_the_steps_of_its_own_grid() -> None:
    builder = VolumeBuilder(SPEC, 3, 2.0)
    for index, value in enumerate((-3000.0, 0.0, 500.0)):
        builder.put(index, PixelImage(np.full((128, 64), value, dtype=np.float32), (0.5, 0.7), "patient"))
    volume = builder.finish()
    assert volume.pixels.shape == (3, 64, 64)
    assert [float(item.max()) for item in volume.pixels] == [0.0, 0.5, 0.75]
    assert float(volume.pixels[2, :, :16].max()) == 0.0  # padded: half as wide as high
    assert volume.steps == (2.0, pytest.approx(1.0), pytest.approx(1.4))
    assert volume.geometry.to_source(32, 32) == (32.0, 64.0)


def test_spacing_at_the_detector_is_no_volume() -> None:
    with pytest.raises(DetectionError):
        VolumeBuilder(SPEC, 2, 1.0).put(0, PixelImage(np.zeros((8, 8), dtype=np.float32), (0.5, 0.5), "detector"))
