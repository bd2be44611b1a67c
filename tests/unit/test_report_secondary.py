"""Secondary objects: what the picture shows and where, and what the objects say of themselves and their source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from support import films
from support.analyses import ANALYSES, BOX, FINDING, MODEL, NO_FINDING, OPACITY, disc, lesion, report
from support.secondary import secondary, slab

from radnode.model import MAX_PICTURES, VIEW_SIDE, Finding, Region, View
from radnode.report import secondary_picture
from radnode.report.sr import encode_report

AMBER, YELLOW, CYAN = (255, 191, 0), (255, 221, 51), (90, 225, 255)
BAND = 50  # rows of the title
GRAY_VIEW = View(VIEW_SIDE, VIEW_SIDE, 512, 512, bytes([90]) * VIEW_SIDE**2)


def nodule(frame: int, score: float = 0.8) -> Finding:
    box = ((100.0, 200.0), (140.0, 200.0), (140.0, 230.0), (100.0, 230.0))
    return Finding(OPACITY, score, region=Region("box", box, frame), diameter_mm=28.1)


def pixels(dataset: pydicom.Dataset) -> np.ndarray:
    return np.frombuffer(dataset.PixelData, np.uint8)[: dataset.Rows * dataset.Columns * 3].reshape(
        dataset.Rows, dataset.Columns, 3
    )


def has(picture: np.ndarray, color: tuple[int, int, int], row: float, column: float, around: int = 2) -> bool:
    """Is there a pixel of this colour near a place of the source of 512 x 512, on a picture of `VIEW_SIDE`?"""
    y, x = BAND + row * VIEW_SIDE / 512, column * VIEW_SIDE / 512
    part = picture[int(y) - around : int(y) + around + 1, int(x) - around : int(x) + around + 1]
    return bool((part == color).all(axis=2).any())


def test_box_is_drawn_where_it_lies_and_nothing_else_there() -> None:
    picture = pixels(secondary(films.fresh(films.OPACITY))["sc1"])
    (left, top), _, (right, bottom), _ = BOX.points
    for row in (top, (top + bottom) / 2, bottom):
        assert has(picture, YELLOW, row, left)
        assert has(picture, YELLOW, row, right)
    assert not has(picture, YELLOW, (top + bottom) / 2, (left + right) / 2, 20)
    assert has(picture, CYAN, 50.0, 35.0, 12)  # the contour of the second finding


def test_picture_fits_a_screen_of_one_megapixel_and_warns() -> None:
    made = secondary(films.fresh(films.OPACITY))["sc1"]
    assert (made.Columns, made.Rows <= 1024) == (VIEW_SIDE, True)
    picture = pixels(made)
    assert (picture[0] == AMBER).all()
    assert (picture[:BAND] == (0, 0, 0)).all(axis=2).mean() > 0.02  # the words
    assert made.BurnedInAnnotation == "YES"
    assert made.ImageComments == secondary_picture.WARNING == "AI result - not for primary diagnosis"


def test_film_beside_the_outline_is_as_a_viewer_shows_it() -> None:
    source = films.fresh(films.OPACITY)
    made = pixels(secondary(source)["sc1"])[BAND : BAND + VIEW_SIDE]
    shown = made[2::8, 2::8].astype(float)
    gray = source.pixel_array[1:512:5, 1:512:5]
    assert (made[600:, 100:300, 0] == made[600:, 100:300, 2]).all()
    assert abs(np.median(shown) - np.median(gray)) < 6


@pytest.mark.parametrize("name", ["failed", "not_attempted"])
def test_analysis_without_result_has_no_secondary_object(name: str) -> None:
    assert secondary(films.fresh(films.OPACITY), ANALYSES[name]) == {}


def test_picture_of_no_finding_says_so_and_has_no_outline() -> None:
    made = secondary(films.fresh(films.NORMAL), NO_FINDING)
    assert list(made) == ["sc1"]
    picture = pixels(made["sc1"])
    assert not (picture == YELLOW).all(axis=2).any()
    assert secondary_picture._lines(NO_FINDING, None, 1)[0][0] == "No opacity above the threshold, score 0.03"


def test_same_input_gives_the_same_bytes_and_another_model_another_series() -> None:
    film = films.fresh(films.OPACITY)
    one, other = (secondary(film) for _ in range(2))
    assert {name: encode_report(item) for name, item in one.items()} == {
        name: encode_report(item) for name, item in other.items()
    }
    newer = secondary(film, replace(FINDING, model=replace(MODEL, version="1.1.0", digest="7f" * 32)))
    assert set(newer) == set(one)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = [item[keyword].value for made in (one, newer) for item in made.values()]
        assert len(set(uids)) == 2 * len(one)


def test_every_object_is_of_the_patient_and_study_of_its_source_as_received() -> None:
    film = films.fresh(films.OPACITY, **films.JAPANESE, IssuerOfPatientID="WARD")
    for item in secondary(film).values():
        copy = pydicom.dcmread(pydicom.filebase.DicomBytesIO(encode_report(item)))
        assert copy.PatientName == film.PatientName
        for keyword in ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
            assert copy[keyword].value == film[keyword].value
        assert copy.SpecificCharacterSet == film.SpecificCharacterSet
        assert copy.SeriesDescription == "AI result, not for primary diagnosis"
        assert copy.ContributingEquipmentSequence[0].DeviceUID == MODEL.device_uid


def test_capture_names_its_source_and_how_it_was_made() -> None:
    film = films.fresh(films.OPACITY)
    made = secondary(film)["sc1"]
    [source] = made.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert (made.ConversionType, made.ImageType) == ("WSD", ["DERIVED", "SECONDARY"])
    assert "cxr-opacity 1.0.0" in made.DerivationDescription
    assert made.LossyImageCompression == film.LossyImageCompression == "01"
    assert made.Modality == "OT"


def test_series_has_a_picture_of_each_slice_with_a_finding_best_first_and_not_too_many() -> None:
    images = slab()
    found = replace(FINDING, peak=None, findings=tuple(nodule(frame, frame / 20) for frame in (3, 9, 5, 12)))
    made = secondary(images, found, ["sc"])
    assert len(made) == MAX_PICTURES
    referenced = [item.SourceImageSequence[0].ReferencedSOPInstanceUID for item in made.values()]
    assert referenced == [images[frame - 1].SOPInstanceUID for frame in (12, 9, 5)]
    assert len({item.SeriesInstanceUID for item in made.values()}) == 1


def test_series_without_finding_shows_its_middle_slice() -> None:
    images = slab()
    [made] = secondary(images, replace(NO_FINDING, peak=None), ["sc"]).values()
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == images[7].SOPInstanceUID


def test_finding_of_another_slice_is_listed_and_not_outlined() -> None:
    found = replace(FINDING, findings=(nodule(3), nodule(9)))
    picture = np.asarray(secondary_picture.draw(GRAY_VIEW, found, 9, 16))
    inside = picture[BAND : BAND + VIEW_SIDE]
    assert (inside == CYAN).all(axis=2).any()
    assert not (inside == YELLOW).all(axis=2).any()
    lines = [text for text, _ in secondary_picture._lines(found, 9, 16)]
    assert lines == ["1  Opacity, score 0.80, 28 mm, image 3", "2  Opacity, score 0.80, 28 mm"]


def test_many_findings_and_long_words_stay_within_the_picture() -> None:
    wordy = replace(nodule(1), code=replace(OPACITY, meaning="Opacity of a kind that nobody can say in short " * 2))
    found = replace(FINDING, findings=(wordy,) * 20)
    picture = secondary_picture.draw(GRAY_VIEW, found, None, 1)
    assert picture.height <= 1024
    assert secondary_picture._lines(found, None, 1)[-1][0] == "and 18 more, see the structured report"
    pixels_right = np.asarray(picture)[BAND + VIEW_SIDE :, -10:]
    assert (pixels_right == pixels_right[0, 0]).all()


@pytest.mark.parametrize("size", [(VIEW_SIDE, 3), (3, VIEW_SIDE), (1, 1)])
def test_narrow_films_have_bands_that_can_be_read(size: tuple[int, int]) -> None:
    rows, columns = size
    picture = secondary_picture.draw(View(rows, columns, rows, columns, bytes(rows * columns)), FINDING, None, 1)
    assert picture.width >= 640


def test_overlay_outlines_the_findings_in_the_pixels_of_the_original() -> None:
    film = films.fresh(films.OPACITY)
    made = secondary(film)["gsps1"]
    [series] = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == film.SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedImageSequence] == [film.SOPInstanceUID]
    [annotation] = made.GraphicAnnotationSequence
    box, contour = annotation.GraphicObjectSequence
    assert list(box.GraphicData) == [value for point in (*BOX.points, BOX.points[0]) for value in point]
    assert (box.GraphicType, box.NumberOfGraphicPoints, box.GraphicAnnotationUnits) == ("POLYLINE", 5, "PIXEL")
    assert contour.NumberOfGraphicPoints == 4
    texts = [item.UnformattedTextValue for item in annotation.TextObjectSequence]
    assert texts == ["1 Opacity 0.87", "2 Opacity 0.61"]
    [area] = made.DisplayedAreaSelectionSequence
    assert (area.DisplayedAreaBottomRightHandCorner, area.PresentationSizeMode) == ([512, 512], "SCALE TO FIT")


def test_overlay_shows_the_image_as_the_picture_does() -> None:
    found = replace(FINDING, findings=(nodule(3), nodule(9)))
    made = secondary(slab(), found)["gsps1"]
    assert [item.ReferencedImageSequence[0].ReferencedSOPInstanceUID for item in made.SoftcopyVOILUTSequence] == [
        slab()[2].SOPInstanceUID,
        slab()[8].SOPInstanceUID,
    ]
    assert {(item.WindowCenter, item.WindowWidth) for item in made.SoftcopyVOILUTSequence} == {(-600, 1600)}
    assert (made.RescaleIntercept, made.RescaleSlope, made.PresentationLUTShape) == (-1024, 1, "IDENTITY")
    negative = secondary(films.fresh(films.OPACITY, PhotometricInterpretation="MONOCHROME1"))["gsps1"]
    assert negative.PresentationLUTShape == "INVERSE"


def test_overlay_has_the_outline_of_every_slice_and_the_window_of_the_picture_on_each() -> None:
    outlines = [disc(150, 220, radius, frame) for frame, radius in ((3, 8), (4, 12), (5, 14), (6, 9))]
    made = secondary(slab(), replace(FINDING, peak=None, findings=(lesion(0.9, *outlines),)))["gsps1"]
    uids = [slab()[outline.frame - 1].SOPInstanceUID for outline in outlines]
    annotations = made.GraphicAnnotationSequence
    assert [item.ReferencedImageSequence[0].ReferencedSOPInstanceUID for item in annotations] == uids
    assert [item.ReferencedImageSequence[0].ReferencedSOPInstanceUID for item in made.SoftcopyVOILUTSequence] == uids
    assert {(item.WindowCenter, item.WindowWidth) for item in made.SoftcopyVOILUTSequence} == {(-600, 1600)}


def test_selection_names_images_with_findings_report_and_pictures() -> None:
    images = slab()
    found = replace(FINDING, findings=(nodule(3), nodule(9)))
    made = secondary(images, found)
    selection = made["kos1"]
    assert selection.ConceptNameCodeSequence[0].CodeValue == "113000"
    referenced = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in selection.ContentSequence
        if item.ValueType in {"IMAGE", "COMPOSITE"}
    ]
    sr = report(images, found)
    pictures = [made[name].SOPInstanceUID for name in ("sc1", "sc2")]
    assert referenced == [images[2].SOPInstanceUID, images[8].SOPInstanceUID, *pictures, sr.SOPInstanceUID]
    [study] = selection.CurrentRequestedProcedureEvidenceSequence
    named = [
        item.ReferencedSOPInstanceUID for each in study.ReferencedSeriesSequence for item in each.ReferencedSOPSequence
    ]
    assert sorted(named) == sorted(referenced)


@pytest.mark.parametrize("kind", ["gsps", "kos"])
def test_finding_without_a_place_has_no_overlay_and_selects_no_image(kind: str) -> None:
    assert secondary(films.fresh(films.OPACITY), replace(FINDING, findings=FINDING.findings[2:]), [kind]) == {}


def test_sloppy_source_has_its_picture_all_the_same() -> None:
    film = films.fresh(films.OPACITY, PatientID=None, StudyDate=None, Modality=None, BodyPartExamined=None)
    film = films.with_raw(film, "PatientAge", "AS", b"62")
    film = films.with_raw(film, "PatientOrientation", "CS", b"left to right \xff")
    assert "sc1" in secondary(film)
