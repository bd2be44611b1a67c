"""How a film is shown: its own window or VOI LUT, else a stretch; the right way round; square pixels."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from support import films

from radnode.detect.decoding import DecoderChild
from radnode.detect.display import view
from radnode.detect.pixels import decode_pixels
from radnode.model import View

RAMP = np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (64, 1))  # (64 rows, 256 columns)


def shown(pixels: np.ndarray = RAMP, side: int = 256, **elements: object) -> np.ndarray:
    made = gray(film(pixels, **elements), side)
    return np.frombuffer(made.pixels, np.uint8).reshape(made.rows, made.columns)


def gray(dataset: Dataset, side: int = 256) -> View:
    return view(decode_pixels(films.file_bytes(dataset)), side)


def film(pixels: np.ndarray, **elements: object) -> Dataset:
    dataset = films.fresh(films.NORMAL, WindowCenter=None, WindowWidth=None, ImagerPixelSpacing=None)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def test_window_of_the_file_is_used() -> None:
    row = shown(WindowCenter="1000", WindowWidth="401")[0]
    values = RAMP[0]
    assert not row[values < 800].any()
    assert (row[values > 1200] == 255).all()
    assert row[list(values).index(1008)] == pytest.approx(255 * (1008 - 999.5) / 400 + 127.5, abs=1)


def test_first_of_several_windows_is_used() -> None:
    assert np.array_equal(
        shown(WindowCenter=["1000", "40"], WindowWidth=["401", "80"]), shown(WindowCenter="1000", WindowWidth="401")
    )


def test_sigmoid_function_is_used() -> None:
    row = shown(WindowCenter="2048", WindowWidth="1000", VOILUTFunction="SIGMOID")[0].astype(float)
    expected = 255 / (1 + np.exp(-4 * (RAMP[0].astype(float) - 2048) / 1000))
    np.testing.assert_allclose(row, expected, atol=1)


def test_voi_lut_is_used_before_the_window() -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = (4095 - np.arange(4096, dtype=np.uint16)).tobytes()
    item["LUTData"].VR = "OW"
    row = shown(VOILUTSequence=[item], WindowCenter="1000", WindowWidth="401")[0]
    np.testing.assert_allclose(row, 255 - 255 * RAMP[0].astype(float) / 4095, atol=1)


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": "60000", "WindowWidth": "10"},  # all of it black
        {"WindowCenter": "5", "WindowWidth": "0"},
        {"WindowCenter": "", "WindowWidth": "100"},
    ],
    ids=["none", "beside", "no width", "no center"],
)
def test_without_a_window_that_shows_anything_contrast_is_stretched(window: dict[str, str]) -> None:
    row = shown(**window)[0]
    assert (row[0], row[-1]) == (0, 255)
    assert row[128] == pytest.approx(128, abs=3)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": "1000", "WindowWidth": "401"}], ids=["stretch", "window"])
def test_monochrome1_is_shown_as_the_same_film_turned_round(window: dict[str, str]) -> None:
    turned = shown(PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_allclose(255 - turned.astype(int), shown(**window), atol=1)


def test_window_that_is_told_is_in_the_units_of_the_file() -> None:
    assert gray(film(RAMP, WindowCenter="1000", WindowWidth="401", PhotometricInterpretation="MONOCHROME1")).window == (
        1000.0,
        401.0,
    )
    hounsfield = film(RAMP, RescaleSlope="1", RescaleIntercept="-1024", WindowCenter="-600", WindowWidth="1600")
    assert gray(hounsfield).window == (-600.0, 1600.0)
    assert gray(film(RAMP)).window == pytest.approx((2040, 4040), abs=60)
    assert gray(film(RAMP, WindowCenter="2048", WindowWidth="999", VOILUTFunction="SIGMOID")).window is None


@pytest.mark.parametrize(
    ("elements", "size"),
    [
        ({}, (64, 256)),
        ({"PixelAspectRatio": [2, 1]}, (128, 256)),
        ({"PixelSpacing": [0.4, 0.1]}, (256, 256)),
        ({"PixelSpacing": [0.1, 0.4], "PixelAspectRatio": [2, 1]}, (16, 256)),
        ({"PixelAspectRatio": [0, 1]}, (64, 256)),
    ],
)
def test_pixels_become_square(elements: dict[str, object], size: tuple[int, int]) -> None:
    assert shown(**elements).shape == size


def test_view_of_the_child_is_that_of_this_process() -> None:
    part10 = films.CT[7].read_bytes()
    with DecoderChild(60.0) as child:
        there = child.decode(part10, 320, 400)
        assert child.decode(part10, 320).view is None
    here = view(decode_pixels(part10), 400)
    assert there.view == here
    assert (here.rows, here.columns, here.source_rows, here.source_columns) == (400, 400, 512, 512)
    assert here.window == (-600.0, 1600.0)
