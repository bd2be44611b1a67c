"""The content tree: TID 1500 Measurement Report (PS3.16), the same shape for all four outcomes.

The first measurement group (TID 1501) speaks for the whole image: the status, whether the target is present or
absent, and the score, which is there below the threshold too. Each finding follows in a group of its own, as
TID 1410 where it has a region and as TID 1501 where it has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as concepts
from pydicom.uid import SecondaryCaptureImageStorage

from radnode.model import Analysis, Finding, ModelIdentity, Outcome, Region
from radnode.report import codes
from radnode.report.uids import tracking_uid

_SCORE_DIGITS = 4  # decimals of a certainty in percent
_LENGTH_DIGITS = 3  # decimals of a length in mm or pixels

_Group = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


@dataclass(frozen=True, slots=True)
class Source:
    """What the content tree needs to know of one source image."""

    SOPClassUID: str
    SOPInstanceUID: str
    Modality: str


def measurement_report(sources: Sequence[Source], analysis: Analysis) -> Dataset:
    """The root content item of the report."""
    report = MeasurementReport(
        title=codes.TITLE,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(codes.ENGLISH)
        ),
        observation_context=ObservationContext(observer_device_context=_observer(analysis.model)),
        procedure_reported=codes.procedure_reported(sources[0].Modality),
        imaging_measurements=[
            _image_group(sources, analysis),
            *(
                _finding_group(sources, analysis.model, finding, index)
                for index, finding in enumerate(analysis.findings, 1)
            ),
        ],
    )
    root: Dataset = report[0]
    return root


def _observer(model: ModelIdentity) -> ObserverContext:
    """TID 1002 and 1004: the observer is the trained model, whose device UID changes when it is retrained."""
    return ObserverContext(
        observer_type=concepts.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=model.device_uid,
            name=codes.ascii_text(model.name),
            manufacturer_name=codes.ascii_text(model.manufacturer),
            model_name=codes.ascii_text(model.name),
            serial_number=model.digest,
        ),
    )


def _image_group(sources: Sequence[Source], analysis: Analysis) -> MeasurementsAndQualitativeEvaluations:
    target = codes.coded(analysis.target)
    evaluations = [
        QualitativeEvaluation(codes.CAD_SUMMARY, codes.SUMMARY[analysis.outcome]),
        QualitativeEvaluation(codes.DETECTIONS, codes.STATUS[analysis.outcome]),
    ]
    detected = analysis.reason is None
    if detected:
        presence = codes.PRESENT if analysis.outcome is Outcome.FINDING else codes.ABSENT
        evaluations.append(QualitativeEvaluation(target, presence))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(sources, analysis.model, 0),
        finding_type=target if detected else None,
        algorithm_id=_algorithm(analysis.model),
        measurements=[] if analysis.score is None else [_certainty(analysis.score)],
        qualitative_evaluations=evaluations,
        source_images=_source_images(sources),
    )
    if analysis.reason is not None:
        group[0].ContentSequence.append(
            TextContentItem(codes.COMMENT, analysis.reason.text, relationship_type=RelationshipTypeValues.CONTAINS)
        )
    return group


def _finding_group(sources: Sequence[Source], model: ModelIdentity, finding: Finding, index: int) -> _Group:
    tracking = _tracking(sources, model, index)
    algorithm = _algorithm(model)
    measurements = [_certainty(finding.score), *_diameter(finding)]
    code = codes.coded(finding.code)
    laterality = None if finding.laterality is None else codes.coded(finding.laterality)
    sites = [] if finding.site is None else [FindingSite(codes.coded(finding.site), laterality=laterality)]
    if finding.region is None:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=code,
            finding_sites=sites,
            algorithm_id=algorithm,
            measurements=measurements,
            source_images=_source_images(sources),
        )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_region=_image_region(sources, finding.region),
        finding_type=code,
        finding_sites=sites,
        algorithm_id=algorithm,
        measurements=measurements,
    )


def _tracking(sources: Sequence[Source], model: ModelIdentity, index: int) -> TrackingIdentifier:
    what = f"finding {index}" if index else "image"
    return TrackingIdentifier(
        uid=tracking_uid([source.SOPInstanceUID for source in sources], model.digest, index),
        identifier=f"{codes.ascii_text(model.name)} {codes.ascii_text(model.version)} {what}",
    )


def _algorithm(model: ModelIdentity) -> AlgorithmIdentification:
    """TID 4019."""
    return AlgorithmIdentification(
        name=codes.ascii_text(model.name),
        version=codes.ascii_text(model.version),
        manufacturer=codes.ascii_text(model.manufacturer),
    )


def _certainty(score: float) -> Measurement:
    """A score in 0..1 as a certainty in percent."""
    return Measurement(name=codes.CERTAINTY, value=round(100.0 * score, _SCORE_DIGITS), unit=codes.PERCENT)


def _diameter(finding: Finding) -> list[Measurement]:
    """The diameter in mm where the detector knew the spacing, else that of the region in pixels of the source."""
    if finding.diameter_mm is not None:
        value, unit = finding.diameter_mm, codes.MILLIMETER
    elif finding.region is not None:
        value, unit = _extent(finding.region), codes.PIXELS
    else:
        return []
    return [Measurement(name=codes.DIAMETER, value=round(value, _LENGTH_DIGITS), unit=unit)]


def _extent(region: Region) -> float:
    """The longer side of a box, the largest distance between two points of a contour; in pixels."""
    points = np.asarray(region.points)  # (column, row) in pixels, shape (N, 2)
    if region.kind == "box":
        return float(np.ptp(points, axis=0).max())
    return max(math.dist(one, other) for one in region.points for other in region.points)


def _image_region(sources: Sequence[Source], region: Region) -> ImageRegion:
    """SCOORD with the outline as a closed polyline, selected from its source image.

    With one source, `frame` is the frame of a multi-frame image; with several it says which of them (from 1).
    """
    source, frames = sources[0], None if region.frame is None else [region.frame]
    if len(sources) > 1:
        source, frames = sources[(region.frame or 1) - 1], None
    outline = np.asarray([*region.points, region.points[0]], dtype=np.float32)  # (column, row), shape (N + 1, 2)
    # highdicom looks the class up and knows only current ones, so the reference gets its own class afterwards.
    image = SourceImageForRegion(SecondaryCaptureImageStorage, source.SOPInstanceUID, frames)
    scoord = ImageRegion(GraphicTypeValues.POLYLINE, outline, image)
    image.ReferencedSOPSequence[0].ReferencedSOPClassUID = source.SOPClassUID
    return scoord


def _source_images(sources: Sequence[Source]) -> list[SourceImageForMeasurementGroup]:
    return [SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID) for source in sources]
