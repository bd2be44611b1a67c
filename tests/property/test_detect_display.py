"""Whatever a file says about its presentation, there is a view of the right size, and nothing raises."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.dataset import Dataset

from radnode.detect.display import read_display, view
from radnode.detect.pixels import PixelImage

NUMBERS = st.floats(-1e9, 1e9, width=32)
PIXELS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=NUMBERS)
TEXTS = st.sampled_from(["", "0", "1", "40", "-600", "1e30", "400"])


@given(PIXELS, TEXTS, TEXTS, st.sampled_from(["LINEAR", "SIGMOID", "LINEAR_EXACT", "X"]), NUMBERS, st.integers(1, 60))
def test_any_frame_has_a_view(
    pixels: np.ndarray, center: str, width: str, function: str, turned: float, side: int
) -> None:
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = center or None, width or None, function
    display = read_display(dataset, turned, (0.5, 0.2))
    shown = view(PixelImage(pixels, display=display), side)
    assert max(shown.rows, shown.columns) == side
    assert len(shown.pixels) == shown.rows * shown.columns
    assert (shown.source_rows, shown.source_columns) == pixels.shape
