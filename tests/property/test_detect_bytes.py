"""Whatever bytes arrive, decoding gives an image or one honest reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from radnode.detect.pixels import decode_pixels
from radnode.errors import DetectionError

WHOLE = Path(str(get_testdata_file("MR_small.dcm", download=False))).read_bytes()


@given(st.lists(st.tuples(st.integers(128, 1700), st.integers(0, 255)), max_size=8), st.integers(0, len(WHOLE)))
def test_changed_or_cut_file_gives_finite_pixels_or_a_detection_error(
    changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(WHOLE)
    for position, value in changes:
        content[position] = value
    try:
        image = decode_pixels(bytes(content[: length or None]))
    except DetectionError:
        return
    assert image.pixels.dtype == np.float32
    assert image.pixels.shape == (image.rows, image.columns)
    assert np.isfinite(image.pixels).all()
