"""The bundled films and their variants are what the other tests take them for."""

from __future__ import annotations

import io
import json

import numpy as np
import pydicom
import pytest
from support import films


def test_samples_hold_pixels_and_true_spacing() -> None:
    for path, spacing in ((films.OPACITY, 0.8296), (films.NORMAL, 0.835)):
        dataset = pydicom.dcmread(path)
        assert dataset.pixel_array.shape == (512, 512)
        assert np.ptp(dataset.pixel_array) > 200
        assert list(dataset.ImagerPixelSpacing) == [spacing, spacing]
        assert "PixelSpacing" not in dataset
    ((x, y, width, height),) = json.loads((films.DATA / "cxr_opacity.json").read_text())["boxes"]
    assert 0 < x < x + width < 512
    assert 0 < y < y + height < 512


def test_ct_slab_is_one_series_in_order() -> None:
    slices = [pydicom.dcmread(path) for path in films.CT]
    assert len(slices) == 16
    assert len({each.SeriesInstanceUID for each in slices}) == 1
    heights = [float(each.ImagePositionPatient[2]) for each in slices]
    assert heights == sorted(heights)
    assert slices[7].pixel_array.min() < 0


def test_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in films.DATA.rglob("*") if path.is_file()) < 8 << 20


@pytest.mark.parametrize("names", [films.LATIN, films.JAPANESE, films.UTF_8, films.NO_CHARACTER_SET])
@pytest.mark.parametrize("path", [films.OPACITY, films.NORMAL, films.CT[0], films.MR])
def test_fresh_image_has_new_uids_and_the_name(path, names: dict[str, object]) -> None:
    before = pydicom.dcmread(path)
    after = pydicom.dcmread(io.BytesIO(films.file_bytes(films.fresh(path, **names))))
    assert after.PatientName == names["PatientName"]
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert before[keyword].value != after[keyword].value


def test_undecodable_image_is_a_readable_file_whose_pixels_do_not_decode() -> None:
    dataset = pydicom.dcmread(io.BytesIO(films.file_bytes(films.undecodable(films.OPACITY))))
    assert dataset.Rows == 512
    with pytest.raises(RuntimeError, match="Unable to decode"):
        _ = dataset.pixel_array
