"""Segmentations: highdicom reads the masks that the detector gave, on the images that it gave them for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset
from support import films
from support.analyses import BOX, CONTOUR, FINDING, MODEL, OPACITY, disc, lesion, report
from support.ct import CTSeries
from support.enhanced import enhanced_ct
from support.report_checks import children, measurement_groups
from support.secondary import secondary, slab

from radnode.model import Analysis, Finding, Region
from radnode.report.masks import fill
from radnode.report.sr import encode_report

OUTLINES = tuple(disc(150, 220, radius, frame) for frame, radius in ((3, 8), (4, 12), (5, 14)))
OTHERS = tuple(disc(300, 260, radius, frame) for frame, radius in ((4, 5), (9, 6)))
MASKED = replace(FINDING, peak=None, findings=(lesion(0.9, *OUTLINES), FINDING.findings[2], lesion(0.6, *OTHERS)))


def read(dataset: Dataset) -> highdicom.seg.Segmentation:
    return highdicom.seg.segread(io.BytesIO(encode_report(dataset)))


def segmented(images: Dataset | Sequence[Dataset], analysis: Analysis) -> highdicom.seg.Segmentation:
    return read(secondary(images, analysis, ["seg"])["seg1"])


def filled(outline: Region, rows: int = 512, columns: int = 512) -> np.ndarray:
    return fill([outline.points], rows, columns)


def test_every_slice_has_the_pixels_of_its_contours_and_no_other_has_any() -> None:
    images = slab()
    seg = segmented(images, MASKED)
    uids = [image.SOPInstanceUID for image in images]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert pixels.shape == (len(images), 512, 512, 2)
    expected = np.zeros(pixels.shape, dtype=bool)
    for segment, outlines in enumerate((OUTLINES, OTHERS)):
        for outline in outlines:
            expected[outline.frame - 1, :, :, segment] = filled(outline)
    np.testing.assert_array_equal(pixels.astype(bool), expected)
    assert seg.NumberOfFrames == 5


def test_volume_lies_in_the_patient_where_its_slices_lie() -> None:
    images = slab()
    volume = segmented(images, MASKED).get_volume()
    affine = highdicom.get_volume_from_series(images).affine
    masked = np.argwhere(volume.array[..., 0])
    slices, rows, columns = (images.index(images[2]), 220, 150)
    centre = np.asarray(affine) @ [slices, rows, columns, 1]
    inside = np.asarray(volume.affine) @ [*masked.mean(axis=0), 1]
    assert np.abs(inside - centre)[:2].max() < 1.0  # mm
    assert volume.spacing == pytest.approx((2.5, *(float(value) for value in images[0].PixelSpacing)))
    assert volume.frame_of_reference_uid == images[0].FrameOfReferenceUID


def test_segment_is_the_finding_of_the_report() -> None:
    images = slab()
    seg = segmented(images, MASKED)
    groups = measurement_groups(report(images, MASKED))
    tracked = [children(group, "112040")[0].UID for group in (groups[1], groups[3])]
    named = [children(group, "112039")[0].TextValue for group in (groups[1], groups[3])]
    found = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [item.tracking_uid for item in found] == tracked
    assert [item.tracking_id for item in found] == named
    assert [item.segment_label for item in found] == ["1 Opacity", "3 Opacity"]
    for item in found:
        assert item.segmented_property_type == highdicom.sr.CodedConcept("112001", "DCM", "Opacity")
        assert item.algorithm_type.value == "AUTOMATIC"
        assert item.SegmentAlgorithmName == f"{MODEL.name} {MODEL.version}"
        assert item.anatomic_regions[0].value == "39607008"
        assert item.anatomic_regions[0].AnatomicRegionModifierSequence[0].CodeValue == "7771000"


def test_frames_of_a_multi_frame_image_are_named_and_placed() -> None:
    image = enhanced_ct(6)
    outlines = [disc(30, 20, radius, frame) for frame, radius in ((2, 4), (3, 8))]
    seg = segmented(image, replace(FINDING, peak=None, findings=(lesion(0.9, *outlines),)))
    pixels = seg.get_pixels_by_source_frame(image.SOPInstanceUID, [2, 3])
    for index, outline in enumerate(outlines):
        np.testing.assert_array_equal(pixels[index, :, :, 0].astype(bool), filled(outline, 64, 64))
    placed = [
        frame.PlanePositionSequence[0].ImagePositionPatient
        for frame in (*image.PerFrameFunctionalGroupsSequence[1:3], *seg.PerFrameFunctionalGroupsSequence)
    ]
    assert placed[:2] == placed[2:]
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.PixelSpacing == image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert measures.SliceThickness == 2.5


def test_overlay_and_selection_name_the_frames_of_a_multi_frame_image() -> None:
    image = enhanced_ct(6)
    outlines = [disc(30, 20, radius, frame) for frame, radius in ((2, 4), (3, 8))]
    made = secondary(image, replace(FINDING, peak=None, findings=(lesion(0.9, *outlines),)))
    annotations = made["gsps1"].GraphicAnnotationSequence
    assert [item.ReferencedImageSequence[0].ReferencedFrameNumber for item in annotations] == [2, 3]
    [key_image] = [item for item in made["kos1"].ContentSequence if item.ValueType == "IMAGE"]
    assert key_image.ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    assert key_image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_film_has_its_mask_pixel_by_pixel_and_no_place_in_the_patient() -> None:
    film = films.fresh(films.OPACITY)
    seg = segmented(film, FINDING)  # a box, a contour, and a finding without a place
    assert seg.NumberOfFrames == 1
    pixels = seg.get_pixels_by_source_instance([film.SOPInstanceUID])
    np.testing.assert_array_equal(pixels[0, :, :, 0].astype(bool), filled(CONTOUR))
    assert "FrameOfReferenceUID" not in seg
    assert "PlanePositionSequence" not in seg.PerFrameFunctionalGroupsSequence[0]
    assert seg.PatientOrientation == film.PatientOrientation


def test_slices_that_do_not_say_where_they_lie_keep_their_order() -> None:
    images = CTSeries().slices(1, 4)
    for image in images:
        del image.ImagePositionPatient
    outlines = [disc(30, 20, 5, frame) for frame in (2, 3)]
    seg = segmented(images, replace(FINDING, peak=None, findings=(lesion(0.9, *outlines),)))
    pixels = seg.get_pixels_by_source_instance([image.SOPInstanceUID for image in images[1:3]])
    assert [pixels[index].sum() for index in (0, 1)] == [filled(outlines[0], 64, 64).sum()] * 2
    positions = [item.FrameContentSequence[0].InStackPositionNumber for item in seg.PerFrameFunctionalGroupsSequence]
    assert positions == [1, 2]


def test_positions_longer_than_a_decimal_string_are_rounded() -> None:
    film = films.fresh(films.CT[0])
    films.with_raw(film, "ImagePositionPatient", "DS", b"-166.00000000000003\\-171.69999999999999\\-207.5")
    [frame] = segmented(film, replace(FINDING, findings=FINDING.findings[1:2])).PerFrameFunctionalGroupsSequence
    assert [str(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient] == ["-166", "-171.7", "-207.5"]


@pytest.mark.parametrize(
    "findings",
    [
        (Finding(OPACITY, 0.8, region=BOX),),
        (Finding(OPACITY, 0.8),),
        (Finding(OPACITY, 0.8, region=disc(20.0, 20.0, 0.2)),),
    ],
    ids=["a box", "no place", "less than a pixel"],
)
def test_finding_without_a_mask_has_no_segmentation(findings: tuple[Finding, ...]) -> None:
    assert secondary(films.fresh(films.OPACITY), replace(FINDING, findings=findings), ["seg"]) == {}
