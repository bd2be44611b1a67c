"""Pixels: what a reader would see, as numbers, and honest failures for everything else."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from radnode.detect.pixels import decode_pixels
from radnode.errors import DetectionError
from radnode.model import Reason

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


def part10(change: Callable[[Dataset], None] = lambda dataset: None, pixels: np.ndarray = RAMP) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "2.25.1"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    change(dataset)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def with_(**elements: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)

    return change


def test_monochrome2_is_given_as_stored() -> None:
    image = decode_pixels(part10())
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, RAMP)
    assert (image.rows, image.columns, image.spacing, image.spacing_at) == (3, 4, None, None)


def test_monochrome1_is_turned_round_so_that_higher_is_brighter() -> None:
    image = decode_pixels(part10(with_(PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_array_equal(image.pixels, RAMP[::-1, ::-1])


def test_rescale_is_applied() -> None:
    image = decode_pixels(part10(with_(RescaleSlope="2", RescaleIntercept="-1000")))
    np.testing.assert_array_equal(image.pixels, RAMP * 2.0 - 1000)


def test_modality_lut_is_applied() -> None:
    table = Dataset()
    table.LUTDescriptor = [1101, 0, 16]
    table.LUTData = np.arange(1101, 0, -1, dtype=np.uint16).tobytes()
    table.add_new(0x00283002, "US", [1101, 0, 16])
    table.ModalityLUTType = "US"
    table["LUTData"].VR = "OW"
    image = decode_pixels(part10(with_(ModalityLUTSequence=[table])))
    np.testing.assert_array_equal(image.pixels, 1101 - RAMP.astype(np.float32))


def test_overlay_bits_above_bits_stored_are_dropped() -> None:
    np.testing.assert_array_equal(decode_pixels(part10(pixels=RAMP | 0xF000)).pixels, RAMP)


def test_signed_values_keep_their_sign_within_bits_stored() -> None:
    signed = (RAMP.astype(np.int16) - 600).astype(np.int16)
    stored = (signed & 0x0FFF).astype(np.uint16)
    image = decode_pixels(part10(with_(PixelRepresentation=1), stored))
    np.testing.assert_array_equal(image.pixels, signed)


def test_padding_takes_the_darkest_value_that_is_not_padding() -> None:
    pixels = RAMP.copy()
    pixels[0, 0] = 4000
    change = with_(PixelPaddingValue=4000)
    image = decode_pixels(part10(change, pixels))
    assert image.pixels[0, 0] == 100.0
    assert image.pixels.max() == 1100.0


@pytest.mark.parametrize(
    ("elements", "spacing", "plane"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3), "patient"),
        ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3), "detector"),
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3), "detector"),
        ({"PixelSpacing": [0.18, 0.27], "ImagerPixelSpacing": [0.2, 0.3]}, (0.18, 0.27), "patient"),
        ({"PixelSpacing": [0, 0.3]}, None, None),
        ({"PixelSpacing": [0.2, 0.3], "Modality": "CR"}, (0.2, 0.3), "detector"),
        (
            {"ImagerPixelSpacing": [0.2, 0.3], "EstimatedRadiographicMagnificationFactor": "1.25"},
            (0.16, 0.24),
            "patient",
        ),
    ],
)
def test_spacing_says_where_it_holds(elements: dict[str, Any], spacing: Any, plane: Any) -> None:
    image = decode_pixels(part10(with_(**elements)))
    assert (image.spacing, image.spacing_at) == (spacing, plane)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_(PixelData=RAMP.tobytes()[:-2]), Reason.PIXELS_UNDECODABLE),
        (with_(PixelData=RAMP.tobytes() * 2), Reason.PIXELS_UNDECODABLE),
        (with_(Rows=30000, Columns=30000), Reason.PIXELS_UNDECODABLE),
        (with_(Rows=0), Reason.PIXELS_UNDECODABLE),
        (with_(BitsStored=17), Reason.PIXELS_UNDECODABLE),
        (with_(HighBit=16), Reason.PIXELS_UNDECODABLE),
        (with_(BitsAllocated=12), Reason.PIXELS_UNDECODABLE),
        (with_(PixelRepresentation=7), Reason.PIXELS_UNDECODABLE),
        (with_(RescaleSlope="1e300"), Reason.PIXELS_UNDECODABLE),
        (with_(NumberOfFrames=2), Reason.MULTI_FRAME),
        (with_(SamplesPerPixel=3), Reason.UNSUPPORTED_PHOTOMETRIC),
        (with_(PhotometricInterpretation="PALETTE COLOR"), Reason.UNSUPPORTED_PHOTOMETRIC),
    ],
)
def test_dishonest_attributes_are_refused(change: Callable[[Dataset], None], reason: Reason) -> None:
    with pytest.raises(DetectionError) as caught:
        decode_pixels(part10(change))
    assert caught.value.reason is reason


@pytest.mark.parametrize("missing", ["PixelData", "Rows", "BitsStored", "PhotometricInterpretation"])
def test_missing_attributes_are_refused(missing: str) -> None:
    def change(dataset: Dataset) -> None:
        delattr(dataset, missing)

    with pytest.raises(DetectionError) as caught:
        decode_pixels(part10(change))
    assert caught.value.reason is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize("content", [b"", b"noise", part10()[:300], b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_file_is_refused(content: bytes) -> None:
    with pytest.raises(DetectionError) as caught:
        decode_pixels(content)
    assert caught.value.reason is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPEG2000.dcm",
        "image_dfl.dcm",
        "emri_small.dcm",
    ],
)
def test_every_transfer_syntax_of_the_pydicom_wheel_decodes_or_declines(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    content = Path(path).read_bytes()
    if int(dcmread(path, stop_before_pixels=True).get("NumberOfFrames", 1)) > 1:
        with pytest.raises(DetectionError) as caught:
            decode_pixels(content)
        assert caught.value.reason is Reason.MULTI_FRAME
        return
    image = decode_pixels(content)
    assert image.pixels.dtype == np.float32
    assert image.pixels.max() > image.pixels.min()


def test_compressed_and_plain_copies_of_one_image_give_the_same_numbers() -> None:
    names = ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm")
    paths = [get_testdata_file(name, download=False) for name in names]
    first, *others = (decode_pixels(Path(str(path)).read_bytes()).pixels for path in paths)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_12_bit_jpeg_extended_fails_honestly() -> None:
    """No codec that pydicom drives here reads it, and a wrong picture would be worse."""
    with pytest.raises(DetectionError) as caught:
        decode_pixels(Path(str(get_testdata_file("JPGExtended.dcm", download=False))).read_bytes())
    assert caught.value.reason is Reason.PIXELS_UNDECODABLE
