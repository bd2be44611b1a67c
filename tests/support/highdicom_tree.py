"""The content tree as highdicom makes it, with all its checks: what the node's own is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    GraphicTypeValues3D,
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
    Scoord3DContentItem,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as concepts

from radnode.model import Analysis, Finding, ModelIdentity, Outcome
from radnode.report import codes, received
from radnode.report.places import Place
from radnode.report.uids import tracking_uid

_Group = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


def measurement_report(sources: Sequence[Dataset], analysis: Analysis) -> Dataset:
    """The root content item of the report."""
    uids = [(received.text(each, "SOPClassUID"), received.text(each, "SOPInstanceUID")) for each in sources]
    groups = [_image_group(uids, analysis)]
    groups += [_finding_group(sources, uids, analysis.model, each, at) for at, each in enumerate(analysis.findings, 1)]
    report = MeasurementReport(
        title=codes.TITLE,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(codes.ENGLISH)
        ),
        observation_context=ObservationContext(observer_device_context=_observer(analysis.model)),
        procedure_reported=codes.procedure_reported(received.text(sources[0], "Modality")),
        imaging_measurements=groups,
    )
    root: Dataset = report[0]
    return root


def _observer(model: ModelIdentity) -> ObserverContext:
    name = codes.ascii_text(model.name)
    return ObserverContext(
        observer_type=concepts.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=model.device_uid,
            name=name,
            manufacturer_name=codes.ascii_text(model.manufacturer),
            model_name=name,
            serial_number=model.digest,
        ),
    )


def _image_group(uids: list[tuple[str, str]], analysis: Analysis) -> MeasurementsAndQualitativeEvaluations:
    target, reason = codes.coded(analysis.target), analysis.reason
    evaluations = [
        QualitativeEvaluation(codes.CAD_SUMMARY, codes.SUMMARY[analysis.outcome]),
        QualitativeEvaluation(codes.DETECTIONS, codes.STATUS[analysis.outcome]),
    ]
    if reason is None:
        presence = codes.PRESENT if analysis.outcome is Outcome.FINDING else codes.ABSENT
        evaluations.append(QualitativeEvaluation(target, presence))
    else:
        evaluations.append(QualitativeEvaluation(codes.REASON, codes.REASONS[reason]))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(uids, analysis.model, 0),
        finding_type=target if reason is None else None,
        algorithm_id=_algorithm(analysis.model),
        measurements=[] if analysis.score is None else [_certainty(analysis.score)],
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup(*each) for each in uids],
    )
    if reason is not None:
        group[0].ContentSequence.insert(-len(uids), _comment(reason.text))
    located = [finding for finding in analysis.findings if finding.region is not None]
    if len(located) == 1:
        group[0].ContentSequence.insert(-len(uids), _region(uids, located[0]))
    return group


def _finding_group(
    sources: Sequence[Dataset], uids: list[tuple[str, str]], model: ModelIdentity, finding: Finding, index: int
) -> _Group:
    place = Place.of(sources, finding.region)
    side = place.laterality if finding.laterality is None else codes.coded(finding.laterality)
    sites = [] if finding.site is None else [FindingSite(codes.coded(finding.site), laterality=side)]
    size = _size(finding, place)
    common = {
        "tracking_identifier": _tracking(uids, model, index),
        "finding_type": codes.coded(finding.code),
        "finding_sites": sites,
        "algorithm_id": _algorithm(model),
        "measurements": [_certainty(finding.score), *size],
    }
    if finding.region is None:
        images = [SourceImageForMeasurementGroup(*each) for each in uids]
        group = MeasurementsAndQualitativeEvaluations(**common, source_images=images)
        after = len(uids)
    else:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(**common, referenced_region=_region(uids, finding))
        after = 1
    if size:
        group[0].ContentSequence.insert(-after, _comment(place.spacing.basis.value))
    group[0].ContentSequence.extend(_outline(finding, place))
    return group


def _tracking(uids: list[tuple[str, str]], model: ModelIdentity, index: int) -> TrackingIdentifier:
    what = f"finding {index}" if index else "image"
    return TrackingIdentifier(
        uid=tracking_uid([instance for _, instance in uids], model.digest, index),
        identifier=f"{codes.ascii_text(model.name)} {codes.ascii_text(model.version)} {what}",
    )


def _algorithm(model: ModelIdentity) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=codes.ascii_text(model.name),
        version=codes.ascii_text(model.version),
        manufacturer=codes.ascii_text(model.manufacturer),
        parameters=[codes.ascii_text(parameter) for parameter in model.parameters],
    )


def _certainty(score: float) -> Measurement:
    return Measurement(name=codes.CERTAINTY, value=round(100.0 * score, 4), unit=codes.PERCENT)


def _comment(text: str) -> TextContentItem:
    return TextContentItem(codes.COMMENT, text, relationship_type=RelationshipTypeValues.CONTAINS)


def _size(finding: Finding, place: Place) -> list[Measurement]:
    is_real = place.spacing.basis.in_patient
    if is_real and finding.diameter_mm is not None:
        value = finding.diameter_mm
    elif finding.region is None:
        return []
    else:
        value = place.extent_mm(finding.region) if is_real else place.extent(finding.region)
    unit = codes.MILLIMETER if is_real else codes.PIXELS
    measured = [Measurement(name=codes.DIAMETER, value=round(value, 3), unit=unit)]
    if is_real and finding.volume_mm3 is not None:
        volume = Measurement(name=codes.VOLUME, value=round(finding.volume_mm3, 3), unit=codes.CUBIC_MILLIMETER)
        measured.append(volume)
    return measured


def _outline(finding: Finding, place: Place) -> list[Scoord3DContentItem]:
    if finding.region is None or place.plane is None:
        return []
    item = Scoord3DContentItem(
        codes.OUTLINE,
        GraphicTypeValues3D.POLYGON,
        np.asarray(place.plane.outline(finding.region.points)),
        place.plane.FrameOfReferenceUID,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    return [item]


def _region(uids: list[tuple[str, str]], finding: Finding) -> ImageRegion:
    region = finding.region
    assert region is not None
    source, frames = uids[0], None if region.frame is None else [region.frame]
    if len(uids) > 1:
        source, frames = uids[(region.frame or 1) - 1], None
    outline = np.asarray([*region.points, region.points[0]], dtype=np.float32)
    return ImageRegion(GraphicTypeValues.POLYLINE, outline, SourceImageForRegion(*source, frames))
