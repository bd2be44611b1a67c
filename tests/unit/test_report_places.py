"""Where a region lies in the patient, against highdicom's geometry."""

from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset
from support import films
from support.analyses import BOX, CONTOUR
from support.ct import CTSeries
from support.enhanced import enhanced_ct

from radnode.report.places import Place
from radnode.spacing import Basis

OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]


@pytest.fixture
def slice_() -> Dataset:
    return films.received(films.fresh(films.CT[3], PixelSpacing=[0.5, 0.75], ImageOrientationPatient=OBLIQUE))


def test_outline_in_the_patient_is_where_highdicom_puts_it(slice_: Dataset) -> None:
    plane = Place.of([slice_], CONTOUR).plane
    assert plane is not None
    transformer = highdicom.spatial.ImageToReferenceTransformer(
        image_position=slice_.ImagePositionPatient,
        image_orientation=slice_.ImageOrientationPatient,
        pixel_spacing=slice_.PixelSpacing,
    )
    expected = transformer(np.asarray([*CONTOUR.points, CONTOUR.points[0]]))
    assert np.allclose(plane.outline(CONTOUR.points), expected)
    assert plane.FrameOfReferenceUID == slice_.FrameOfReferenceUID


def test_centre_of_the_first_pixel_is_image_position(slice_: Dataset) -> None:
    plane = Place.of([slice_], BOX).plane
    assert plane is not None
    assert np.allclose(plane.outline([(0.5, 0.5)])[0], slice_.ImagePositionPatient)


def test_distances_in_the_patient_are_those_in_mm(slice_: Dataset) -> None:
    place = Place.of([slice_], BOX)
    assert place.plane is not None
    corners = np.asarray(place.plane.outline(BOX.points))
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    assert place.extent_mm(BOX) == pytest.approx(sides.max())
    assert place.extent(BOX) == 212.0


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("FrameOfReferenceUID", None),
        ("ImagePositionPatient", None),
        ("ImageOrientationPatient", None),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [2, 0, 0, 0, 2, 0]),
        ("ImagePositionPatient", [0, 0, 1e9]),
        ("PixelSpacing", None),
        ("Modality", "DX"),
    ],
)
def test_there_is_no_plane_where_the_image_does_not_say_it(keyword: str, value: object) -> None:
    place = Place.of([films.received(films.fresh(films.CT[3], **{keyword: value}))], BOX)
    assert place.plane is None


def test_a_region_is_on_the_slice_that_its_frame_counts() -> None:
    slices = [films.received(each) for each in CTSeries().slices(1, 3)]
    second = Place.of(slices, replace(BOX, frame=2))
    assert second.plane is not None
    assert np.allclose(second.plane.outline([(0.5, 0.5)])[0], slices[1].ImagePositionPatient)


def test_a_frame_has_its_position_in_its_functional_group() -> None:
    image = enhanced_ct()
    found = [Place.of([image], replace(BOX, frame=frame)) for frame in (1, 2)]
    for number, place in enumerate(found):
        assert place.plane is not None
        group = image.PerFrameFunctionalGroupsSequence[number]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place.plane.outline([(0.5, 0.5)])[0], position)
        assert place.spacing.basis is Basis.SLICE
