"""Presentation states as dcmtk's renderer applies them: the gray values of the picture, the outlines of the report."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from support import films
from support.analyses import BOX, CONTOUR, FINDING, disc, lesion
from support.secondary import secondary, slab

from radnode.detect.display import view
from radnode.detect.pixels import decode_pixels
from radnode.model import VIEW_SIDE, Analysis
from radnode.report.sr import encode_report

LESION = lesion(0.9, *(disc(150, 220, radius, frame) for frame, radius in ((3, 8), (4, 12), (5, 14))))


def _slices() -> list[Dataset]:
    """The bundled CT, as dcmtk can read it: without JPEG-LS, and of a patient who has a name."""
    images = slab(**films.LATIN)
    for image in images:
        image.decompress()
    return images


# The images, what was found in them, and which of them (from 0) is rendered.
CASES: dict[str, Callable[[], tuple[list[Dataset], Analysis, int]]] = {
    "film": lambda: ([films.fresh(films.OPACITY)], FINDING, 0),
    "inverse film": lambda: ([films.fresh(films.OPACITY, PhotometricInterpretation="MONOCHROME1")], FINDING, 0),
    "narrow window": lambda: ([films.fresh(films.NORMAL, WindowCenter=150, WindowWidth=60)], FINDING, 0),
    "slice": lambda: (_slices(), replace(FINDING, peak=None, findings=(LESION,)), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_dcmtk_renders_what_the_picture_shows_and_reads_every_outline(name: str, tmp_path: Path) -> None:
    if shutil.which("dcmp2pgm") is None:
        pytest.skip("dcmtk is not installed")
    images, analysis, index = CASES[name]()
    part10 = films.file_bytes(images[index])
    (tmp_path / "image.dcm").write_bytes(part10)
    (tmp_path / "state.dcm").write_bytes(encode_report(secondary(images, analysis, ["gsps"])["gsps1"]))
    done = subprocess.run(
        ["dcmp2pgm", "-v", "-p", tmp_path / "state.dcm", tmp_path / "image.dcm", tmp_path / "shown.pgm"],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said

    picture = view(decode_pixels(part10), VIEW_SIDE)
    drawn = np.asarray(Image.frombytes("L", (picture.columns, picture.rows), picture.pixels), dtype=float)
    shown = Image.open(tmp_path / "shown.pgm").convert("L").resize((picture.columns, picture.rows))
    assert np.abs(np.asarray(shown, dtype=float) - drawn).mean() < 4.0  # of 255
    assert drawn.std() > 30.0

    outlines = [BOX, CONTOUR] if len(images) == 1 else [LESION.outlines[1]]
    found = [_numbers(line) for line in re.findall(r"coordinates: (.+)", said)]
    assert len(found) == len(outlines)
    for numbers, outline in zip(found, outlines, strict=True):
        expected = [value for point in (*outline.points, outline.points[0]) for value in point]
        np.testing.assert_allclose(numbers, expected, atol=0.001)
    assert said.count("Recomm. display value") == 1  # one layer
    assert "AI result - not for primary diagnosis" in said
    assert re.findall(r'text \d+: "(.+)"', said) == (
        ["1 Opacity 0.87", "2 Opacity 0.61"] if len(images) == 1 else ["1 Opacity 0.90"]
    )


def _numbers(line: str) -> list[float]:
    return [float(value) for value in re.findall(r"[-\d.e+]+", line)]
