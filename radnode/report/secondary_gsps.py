"""The Grayscale Softcopy Presentation State (PS3.3 A.33.1): the outlines as an overlay on the original images."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from radnode.model import Finding, Region, View
from radnode.report import codes, received
from radnode.report.secondary_header import Origin, begin, reference, referenced_series, size
from radnode.report.secondary_picture import WARNING

_LAYER = "AI_RESULT"
_LABEL_HEIGHT = 0.03  # of the image's rows, for the text of one finding
_RESCALE = ("RescaleIntercept", "RescaleSlope")
_WINDOW = ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")


def presentation_state(origin: Origin, views: Mapping[int, View]) -> Dataset | None:
    """Return the overlay of all findings that lie on an image; None where none does.

    `views` says how the images are shown, by their number among the sources, from 1: a presentation state takes the
    place of what the image says itself.
    """
    by_frame: dict[int, list[tuple[int, Finding, Region]]] = {}
    for number, finding in enumerate(origin.analysis.findings, 1):
        for region in finding.mask or (() if finding.region is None else (finding.region,)):
            by_frame.setdefault(region.frame or 1, []).append((number, finding, region))
    if not by_frame:
        return None
    frames = sorted(by_frame)
    images = {frame: origin.source_of(frame) for frame in (frames if len(origin.sources) > 1 else frames[:1])}
    made = begin(origin, "gsps", 1, GrayscaleSoftcopyPresentationStateStorage, "PR")
    made.ContentLabel = _LAYER
    made.ContentDescription = WARNING
    made.ContentCreatorName = ""
    made.PresentationCreationDate, made.PresentationCreationTime = made.ContentDate, made.ContentTime
    del made.ContentDate, made.ContentTime
    made.ReferencedSeriesSequence = referenced_series(list(images.values()), "ReferencedImageSequence")
    made.DisplayedAreaSelectionSequence = [_displayed_area(image) for image in images.values()]
    made.GraphicLayerSequence = [_layer()]
    made.GraphicAnnotationSequence = [_annotation(origin, by_frame[frame]) for frame in frames]
    first = images[frames[0]]
    _add_modality_lut(made, first)
    shown = next(iter(views.values()), None)  # stands for the slices of a series that no picture is made of
    made.SoftcopyVOILUTSequence = [
        item for frame, image in images.items() if (item := _voi_lut(image, views.get(frame, shown))) is not None
    ]
    if not made.SoftcopyVOILUTSequence:
        del made.SoftcopyVOILUTSequence
    inverse = received.text(first, "PhotometricInterpretation") == "MONOCHROME1"
    made.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    return made


def _displayed_area(image: Dataset) -> Dataset:
    """Return the whole image, scaled to fit, its pixels as the file says they are (PS3.3 C.10.4)."""
    rows, columns = size(image)
    item = Dataset()
    item.ReferencedImageSequence = [reference(image)]
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [columns, rows]
    item.PresentationSizeMode = "SCALE TO FIT"
    spacing = [each for each in received.elements(image, ("PixelSpacing",)) if each.value and received.is_legal(each)]
    if spacing:
        item.PresentationPixelSpacing = received.text(image, "PixelSpacing").split("\\")
    else:
        item.PresentationPixelAspectRatio = [1, 1]
    return item


def _layer() -> Dataset:
    item = Dataset()
    item.GraphicLayer = _LAYER
    item.GraphicLayerOrder = 1
    item.GraphicLayerDescription = WARNING
    return item


def _annotation(origin: Origin, findings: list[tuple[int, Finding, Region]]) -> Dataset:
    """Return outlines and labels of the findings on one image, or on a frame of it, in pixels as in SCOORD.

    PS3.3 C.10.5.
    """
    frame = findings[0][2].frame
    image = origin.source_of(frame)
    rows, columns = size(image)
    item = Dataset()
    item.ReferencedImageSequence = [origin.reference(frame)]
    item.GraphicLayer = _LAYER
    item.TextObjectSequence, item.GraphicObjectSequence = [], []
    for number, finding, region in findings:
        outline = Dataset()
        outline.GraphicAnnotationUnits = "PIXEL"
        outline.GraphicDimensions = 2
        outline.GraphicData = [value for point in (*region.points, region.points[0]) for value in point]
        outline.NumberOfGraphicPoints = len(region.points) + 1
        outline.GraphicType = "POLYLINE"
        outline.GraphicFilled = "N"
        item.GraphicObjectSequence.append(outline)
        height = _LABEL_HEIGHT * rows
        left = min(column for column, _ in region.points)
        bottom = max(min(row for _, row in region.points), height)  # above the outline, and within the image
        label = Dataset()
        label.BoundingBoxAnnotationUnits = "PIXEL"
        label.UnformattedTextValue = f"{number} {codes.ascii_text(finding.code.meaning)} {finding.score:.2f}"
        label.BoundingBoxTopLeftHandCorner = [left, bottom - height]
        label.BoundingBoxBottomRightHandCorner = [max(left + 1, min(left + columns / 3, columns)), bottom]
        label.BoundingBoxTextHorizontalJustification = "LEFT"
        item.TextObjectSequence.append(label)
    return item


def _add_modality_lut(made: Dataset, image: Dataset) -> None:
    """Copy the Modality LUT, which a presentation state replaces too: a table, or a rescale (PS3.3 C.11.1)."""
    table = received.items(image, "ModalityLUTSequence")
    found = [
        item
        for item in received.elements(image, ("ModalityLUTSequence",) if table else _RESCALE)
        if item.value and received.is_legal(item)
    ]
    if not table and len(found) < len(_RESCALE):
        return
    for item in found:
        made[item.tag] = item
    if not table:
        made.RescaleType = "HU" if received.text(image, "Modality") == "CT" else "US"


def _voi_lut(image: Dataset, view: View | None) -> Dataset | None:
    """Return how one image is shown: the window of its view, else what the image says itself (PS3.3 C.11.8)."""
    item = Dataset()
    if view is not None and view.window is not None:
        item.WindowCenter, item.WindowWidth = (f"{value:.10g}" for value in view.window)
    else:
        keywords = _WINDOW[:1] if received.items(image, "VOILUTSequence") else _WINDOW[1:]
        for each in filter(received.is_legal, received.elements(image, keywords)):
            item[each.tag] = each
    if not len(item):
        return None
    item.ReferencedImageSequence = [reference(image)]
    return item
