"""The Segmentation (PS3.3 A.51): the masks of a detector as pixels of the images that they lie on.

One segment for each finding with a mask, one frame for each slice that it lies on. A segment has the tracking UID of
its finding in the report. Where the sources say where they lie in the patient, so do the frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Concept
from pydicom.tag import Tag
from pydicom.uid import UID, SegmentationStorage
from pydicom.valuerep import is_valid_ds

from radnode.model import Finding, Region
from radnode.report import codes, items, received, uids
from radnode.report.masks import Mask, fill
from radnode.report.places import Place, Plane, Reader
from radnode.report.secondary_header import Origin, begin, reference, referenced_series, size
from radnode.report.secondary_picture import WARNING, outline_color

_CATEGORY = Concept("49755003", "SCT", "Morphologically Abnormal Structure")  # PS3.16 CID 7150
_DERIVATION = Concept("113076", "DCM", "Segmentation")  # PS3.3 A.51.5.1
_SOURCE_IMAGE = Concept("121322", "DCM", "Source Image for Image Processing Operation")
_LABEL = "AI_RESULT"
_STACK = "1"
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True, slots=True)
class _Slice:
    """An image, or a frame of one, that masks lie on; `plane` is None where it does not say where it lies."""

    source: Dataset
    frame: int | None
    plane: Plane | None

    @classmethod
    def of(cls, origin: Origin, region: Region) -> _Slice:
        source = origin.source_of(region.frame)
        frame = None if len(origin.sources) > 1 else region.frame
        return cls(source, frame, Place.of(origin.sources, region).plane)

    def values(self, keyword: str) -> list[str]:
        """Return the numbers of an element that says where the image lies, as received where a DS can hold them."""
        values = Reader(self.source, self.frame).text(keyword).split("\\")
        return [value if is_valid_ds(value) else items.decimal(float(value)) for value in values]

    def distance(self) -> float:
        """Return how far along its normal it lies, to sort slices of one size; 0 where it has no plane."""
        return 0.0 if self.plane is None else float(self.plane.corner @ np.cross(self.plane.column, self.plane.row))


def segmentation(origin: Origin) -> Dataset | None:
    """Return the segmentation; None where no finding has a mask that holds the centre of a pixel.

    The images that masks lie on are of one size.
    """
    segments: list[tuple[int, Finding, dict[int, Mask]]] = []
    slices: dict[int, _Slice] = {}
    for index, finding in enumerate(origin.analysis.findings, 1):
        masks: dict[int, Mask] = {}
        for number in sorted({region.frame or 1 for region in finding.mask}):
            regions = [region for region in finding.mask if (region.frame or 1) == number]
            slices.setdefault(number, _Slice.of(origin, regions[0]))
            mask = fill([region.points for region in regions], *size(slices[number].source))
            masks |= {number: mask} if mask.any() else {}
        if masks:
            segments.append((index, finding, masks))
    if not segments:
        return None
    slices = {number: slices[number] for number in sorted({number for _, _, masks in segments for number in masks})}
    frames_of_reference = {None if each.plane is None else each.plane.FrameOfReferenceUID for each in slices.values()}
    in_patient = len(frames_of_reference) == 1 and None not in frames_of_reference
    order = sorted(slices, key=lambda number: (slices[number].distance() if in_patient else 0.0, number))
    frames = [
        (segment, number, masks[number])
        for segment, (_, _, masks) in enumerate(segments, 1)
        for number in order
        if number in masks
    ]
    made = begin(origin, "seg", 1, SegmentationStorage, "SEG")
    _add_image(made, origin, [mask for _, _, mask in frames])
    made.SegmentSequence = [_segment(origin, *each) for each in enumerate(segments, 1)]
    _add_dimensions(made, origin, in_patient)
    if in_patient:
        _add_place(made, origin, slices[order[0]])
    else:
        made.SharedFunctionalGroupsSequence = [Dataset()]
    made.PerFrameFunctionalGroupsSequence = [
        _frame(slices[number], segment, order.index(number) + 1, in_patient) for segment, number, _ in frames
    ]
    made.ReferencedSeriesSequence = referenced_series(
        [slices[number].source for number in order], "ReferencedInstanceSequence"
    )
    return made


def _add_image(made: Dataset, origin: Origin, masks: Sequence[Mask]) -> None:
    """General Image, Image Pixel and Segmentation Image (PS3.3 C.7.6.1, C.7.6.3, C.8.20.2): one bit a pixel."""
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.ContentLabel = _LABEL
    made.ContentDescription = WARNING
    made.ContentCreatorName = ""
    made.BurnedInAnnotation = "NO"
    made.LossyImageCompression = "00"
    made.PatientOrientation = ""
    for item in filter(received.is_legal, received.elements(origin.sources[0], ("PatientOrientation", *_LOSSY))):
        made[item.tag] = item
    made.SegmentationType = "BINARY"
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.NumberOfFrames = len(masks)
    made.Rows, made.Columns = masks[0].shape
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = 0
    made.PixelRepresentation = 0
    bits = np.packbits(np.concatenate([mask.ravel() for mask in masks]), bitorder="little").tobytes()
    made.PixelData = bits + bytes(len(bits) % 2)
    made["PixelData"].VR = "OB"


def _segment(origin: Origin, segment: int, found: tuple[int, Finding, Mapping[int, Mask]]) -> Dataset:
    """Return what one segment is (PS3.3 C.8.20.4), in the colour that its finding has on the picture."""
    number, finding, _ = found
    model = origin.analysis.model
    item = Dataset()
    item.SegmentNumber = segment
    item.SegmentLabel = codes.ascii_text(f"{number} {finding.code.meaning}")
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = codes.ascii_text(f"{model.name} {model.version}")
    item.SegmentedPropertyCategoryCodeSequence = [CodedConcept.from_code(_CATEGORY)]
    item.SegmentedPropertyTypeCodeSequence = [CodedConcept.from_code(codes.coded(finding.code))]
    if finding.site is not None:
        item.AnatomicRegionSequence = [CodedConcept.from_code(codes.coded(finding.site))]
        if finding.laterality is not None:
            side = CodedConcept.from_code(codes.coded(finding.laterality))
            item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [side]
    item.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*outline_color(number)).value)
    SOPInstanceUIDs = [received.text(source, "SOPInstanceUID") for source in origin.sources]
    item.TrackingID = uids.tracking_identifier(model, number)
    item.TrackingUID = uids.tracking_uid(SOPInstanceUIDs, model.digest, number)
    return item


def _add_dimensions(made: Dataset, origin: Origin, in_patient: bool) -> None:
    """Order the frames by segment, then along the normal, or by their number (PS3.3 C.7.6.17)."""
    SOPInstanceUIDs = [received.text(source, "SOPInstanceUID") for source in origin.sources]
    organization = UID(uids.document_uid(SOPInstanceUIDs, origin.analysis.model.digest, "seg dimensions"))
    item = Dataset()
    item.DimensionOrganizationUID = organization
    made.DimensionOrganizationSequence = [item]
    across = (
        ("PlanePositionSequence", "ImagePositionPatient")
        if in_patient
        else ("FrameContentSequence", "InStackPositionNumber")
    )
    made.DimensionIndexSequence = []
    for group, pointer in (("SegmentIdentificationSequence", "ReferencedSegmentNumber"), across):
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer = Tag(pointer)
        index.FunctionalGroupPointer = Tag(group)
        made.DimensionIndexSequence.append(index)


def _add_place(made: Dataset, origin: Origin, first: _Slice) -> None:
    """Frame of Reference (PS3.3 C.7.4.1), and what its frames share: spacing and orientation of the sources."""
    del made.PatientOrientation  # General Image has it where nothing says how the image lies
    made.FrameOfReferenceUID = received.text(first.source, "FrameOfReferenceUID")
    made.PositionReferenceIndicator = ""
    for item in received.elements(origin.sources[0], ("PositionReferenceIndicator",)):
        made[item.tag] = item
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = first.values("PixelSpacing")
    thickness = Reader(origin.sources[0], first.frame).text("SliceThickness")
    if thickness and is_valid_ds(thickness):
        measures.SliceThickness = thickness
    orientation.ImageOrientationPatient = first.values("ImageOrientationPatient")
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    made.SharedFunctionalGroupsSequence = [shared]


def _frame(place: _Slice, segment: int, index: int, in_patient: bool) -> Dataset:
    """Return the functional groups of one frame (PS3.3 A.51.5), which lies on its source pixel by pixel."""
    derivation, content, which, item = (Dataset() for _ in range(4))
    source = reference(place.source, place.frame)
    source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(_SOURCE_IMAGE)]
    source.SpatialLocationsPreserved = "YES"
    derivation.DerivationCodeSequence = [CodedConcept.from_code(_DERIVATION)]
    derivation.SourceImageSequence = [source]
    content.DimensionIndexValues = [segment, index]
    which.ReferencedSegmentNumber = segment
    item.DerivationImageSequence = [derivation]
    item.FrameContentSequence = [content]
    item.SegmentIdentificationSequence = [which]
    if in_patient:
        position = Dataset()
        position.ImagePositionPatient = place.values("ImagePositionPatient")
        item.PlanePositionSequence = [position]
    else:
        content.StackID = _STACK
        content.InStackPositionNumber = index
    return item
