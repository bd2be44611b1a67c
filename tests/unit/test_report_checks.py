"""The own checks of a report catch what the validators let pass."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.dataset import Dataset
from support import films
from support.analyses import report
from support.report_checks import children, name, problems, walk


@pytest.fixture
def good() -> Dataset:
    return report(films.received(pydicom.dcmread(films.OPACITY)))


def without(dataset: Dataset, group: int, code: str) -> None:
    chosen = [item for item in walk(dataset) if name(item) == "125007"][group]
    chosen.ContentSequence = [item for item in chosen.ContentSequence if name(item) != code]


def test_a_good_report_has_no_problem(good: Dataset) -> None:
    assert problems(good) == []


def test_another_title_is_a_problem(good: Dataset) -> None:
    good.ConceptNameCodeSequence[0].CodeValue = "126001"
    assert problems(good) == ["The title is not 126000 Imaging Measurement Report."]


def test_a_planar_group_without_region_is_a_problem(good: Dataset) -> None:
    without(good, 1, "111030")
    assert problems(good) == ["Planar group 2 has no region on an image."]


def test_a_region_on_no_image_is_a_problem(good: Dataset) -> None:
    planar = [item for item in walk(good) if name(item) == "125007"][1]
    del children(planar, "111030")[0].ContentSequence
    assert problems(good) == ["Planar group 2 has no region on an image."]


def test_a_group_without_tracking_uid_is_a_problem(good: Dataset) -> None:
    without(good, 3, "112040")
    assert problems(good) == ["Group 4 has no tracking UID."]


def test_a_report_without_group_is_a_problem(good: Dataset) -> None:
    good.ContentSequence = [item for item in good.ContentSequence if name(item) != "126010"]
    assert problems(good) == ["There is no measurement group."]


def test_a_reference_outside_the_evidence_is_a_problem(good: Dataset) -> None:
    del good.CurrentRequestedProcedureEvidenceSequence
    assert set(problems(good)) == {"An image is referenced that the evidence does not name."}
