"""What is reported on: images, and nothing that a report could be."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from support import films
from support.analyses import report

from radnode.detect.gate import is_image


@pytest.mark.parametrize("path", [films.OPACITY, films.NORMAL, films.CT[0], films.MR])
def test_images_are_reported_on(path: films.Path) -> None:
    assert is_image(films.received(films.fresh(path)))


def test_image_class_without_rows_is_reported_on() -> None:
    assert is_image(films.received(films.fresh(films.OPACITY, Rows=None)))


def test_own_report_that_a_pacs_routes_back_is_not_reported_on() -> None:
    assert not is_image(report(films.received(films.fresh(films.OPACITY))))


def test_unknown_class_with_rows_is_reported_on() -> None:
    unknown = Dataset()
    unknown.SOPClassUID = "1.2.3.4"
    assert not is_image(unknown)
    unknown.Rows = 8
    assert is_image(unknown)
