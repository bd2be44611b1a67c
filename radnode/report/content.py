"""The content tree: TID 1500 Measurement Report (PS3.16), the same shape for all four outcomes.

The first measurement group (TID 1501) speaks for the whole image: the status, whether the target is present or
absent, and the score, which is there below the threshold too. Each finding follows in a group of its own, as
TID 1410 where it has a region and as TID 1501 where it has none. The only region of a report stands in the first group
too (TID 1501 row 10c): it is where the target is present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from radnode.model import Analysis, Finding, ModelIdentity, Outcome, Region
from radnode.report import codes, items, received
from radnode.report.items import CONTAINS, HAS_CONCEPT_MOD, HAS_OBS_CONTEXT, SELECTED_FROM
from radnode.report.places import Place
from radnode.report.uids import tracking_identifier, tracking_uid

_SCORE_DIGITS = 4  # decimals of a certainty in percent
_LENGTH_DIGITS = 3  # decimals of a length in mm or pixels, of a volume in mm³


@dataclass(frozen=True)
class _Study:
    """What every group of one report is made from."""

    sources: Sequence[Dataset]
    model: ModelIdentity

    @cached_property
    def UIDs(self) -> list[tuple[str, str]]:
        return [(received.text(each, "SOPClassUID"), received.text(each, "SOPInstanceUID")) for each in self.sources]

    @cached_property
    def images(self) -> list[bytes]:
        """Every source as an item of the group that speaks for all of them."""
        name = codes.SOURCE_OF_MEASUREMENT
        return [items.image(CONTAINS, name, items.reference(*each)) for each in self.UIDs]

    @cached_property
    def algorithm(self) -> list[bytes]:
        """TID 4019."""
        model = self.model
        said = [
            (codes.ALGORITHM_NAME, model.name),
            (codes.ALGORITHM_VERSION, model.version),
            (codes.ALGORITHM_MANUFACTURER, model.manufacturer),
            *((codes.ALGORITHM_PARAMETERS, parameter) for parameter in model.parameters),
        ]
        return [items.text(HAS_CONCEPT_MOD, name, codes.ascii_text(value)) for name, value in said]

    def tracking(self, index: int) -> list[bytes]:
        """TID 1410 and 1501, rows 2 and 3; index 0 is the whole image."""
        uid = tracking_uid([instance for _, instance in self.UIDs], self.model.digest, index)
        return [
            items.text(HAS_OBS_CONTEXT, codes.TRACKING_IDENTIFIER, tracking_identifier(self.model, index)),
            items.uid(HAS_OBS_CONTEXT, codes.TRACKING_UID, uid),
        ]


def measurement_report(sources: Sequence[Dataset], analysis: Analysis) -> list[RawDataElement]:
    """The elements of the root content item; `sources` are the headers of the analysed images."""
    study = _Study(sources, analysis.model)
    groups = [
        _image_group(study, analysis),
        *(_finding_group(study, finding, index) for index, finding in enumerate(analysis.findings, 1)),
    ]
    procedure = codes.procedure_reported(received.text(sources[0], "Modality"))
    children = [
        items.code(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
        *_observer(analysis.model),
        items.code(HAS_CONCEPT_MOD, codes.PROCEDURE_REPORTED, procedure),
        items.container(codes.MEASUREMENTS, "", groups),
    ]
    return items.root(codes.TITLE, "1500", children)


def _observer(model: ModelIdentity) -> list[bytes]:
    """TID 1002 and 1004: the observer is the trained model, whose device UID changes when it is retrained."""
    name = codes.ascii_text(model.name)
    return [
        items.code(HAS_OBS_CONTEXT, codes.OBSERVER_TYPE, codes.DEVICE),
        items.uid(HAS_OBS_CONTEXT, codes.DEVICE_UID, model.device_uid),
        items.text(HAS_OBS_CONTEXT, codes.DEVICE_NAME, name),
        items.text(HAS_OBS_CONTEXT, codes.DEVICE_MANUFACTURER, codes.ascii_text(model.manufacturer)),
        items.text(HAS_OBS_CONTEXT, codes.DEVICE_MODEL, name),
        items.text(HAS_OBS_CONTEXT, codes.DEVICE_SERIAL, model.digest),
    ]


def _image_group(study: _Study, analysis: Analysis) -> bytes:
    target, reason = codes.coded(analysis.target), analysis.reason
    parts = study.tracking(0)
    if reason is None:
        parts.append(items.code(CONTAINS, codes.FINDING, target))
    parts += study.algorithm
    if analysis.score is not None:
        parts.append(_certainty(analysis.score))
    parts.append(items.code(CONTAINS, codes.CAD_SUMMARY, codes.SUMMARY[analysis.outcome]))
    parts.append(items.code(CONTAINS, codes.DETECTIONS, codes.STATUS[analysis.outcome]))
    if reason is None:
        presence = codes.PRESENT if analysis.outcome is Outcome.FINDING else codes.ABSENT
        parts.append(items.code(CONTAINS, target, presence))
    else:
        parts.append(items.code(CONTAINS, codes.REASON, codes.REASONS[reason]))
        parts.append(items.text(CONTAINS, codes.COMMENT, reason.text))
    located = [finding.region for finding in analysis.findings if finding.region is not None]
    if len(located) == 1:  # PixelMed wants a region in every group of a report that has one region in all
        parts.append(_image_region(located[0], Place.of(study.sources, located[0])))
    return items.container(codes.GROUP, "1501", [*parts, *study.images])


def _finding_group(study: _Study, finding: Finding, index: int) -> bytes:
    place = Place.of(study.sources, finding.region)
    parts = [*study.tracking(index), items.code(CONTAINS, codes.FINDING, codes.coded(finding.code))]
    if finding.site is not None:
        parts.append(items.code(HAS_CONCEPT_MOD, codes.FINDING_SITE, codes.coded(finding.site), *_side(finding, place)))
    parts += [*study.algorithm, _certainty(finding.score), *_size(finding, place)]
    if finding.region is None:
        return items.container(codes.GROUP, "1501", [*parts, *study.images])
    regions = [_image_region(finding.region, place), *_outline(finding.region, place)]
    return items.container(codes.GROUP, "1410", [*parts, *regions])


def _side(finding: Finding, place: Place) -> list[bytes]:
    """The laterality that the detector gives, else that of the one breast that a mammogram shows."""
    side = place.laterality if finding.laterality is None else codes.coded(finding.laterality)
    return [] if side is None else [items.code(HAS_CONCEPT_MOD, codes.LATERALITY, side)]


def _certainty(score: float) -> bytes:
    """A score in 0..1 as a certainty in percent."""
    return items.number(CONTAINS, codes.CERTAINTY, round(100.0 * score, _SCORE_DIGITS), codes.PERCENT)


def _size(finding: Finding, place: Place) -> list[bytes]:
    """The diameter, the volume where the detector gives one in mm³, and a comment on what they rest on.

    The diameter is in mm, as the detector says or else of the region, where the spacing of the image holds in the
    patient; else in pixels of the region. Nothing where there is no region to measure and no spacing to trust.
    """
    region, basis = finding.region, place.spacing.basis
    if basis.in_patient and finding.diameter_mm is not None:
        value, unit = finding.diameter_mm, codes.MILLIMETER
    elif region is None:
        return []
    elif basis.in_patient:
        value, unit = place.extent_mm(region), codes.MILLIMETER
    else:
        value, unit = place.extent(region), codes.PIXELS
    measured = [items.number(CONTAINS, codes.DIAMETER, round(value, _LENGTH_DIGITS), unit)]
    if basis.in_patient and finding.volume_mm3 is not None:
        volume = round(finding.volume_mm3, _LENGTH_DIGITS)
        measured.append(items.number(CONTAINS, codes.VOLUME, volume, codes.CUBIC_MILLIMETER))
    return [*measured, items.text(CONTAINS, codes.COMMENT, basis.value)]


def _outline(region: Region, place: Place) -> list[bytes]:
    """SCOORD3D with the region in the patient, for viewers that show another series of the frame of reference.

    Beside the Image Region and under a name of its own, since TID 1410 has one region and most viewers want pixels.
    """
    if place.plane is None:
        return []
    points = place.plane.outline(region.points)
    return [items.scoord3d(CONTAINS, codes.OUTLINE, points, place.plane.FrameOfReferenceUID)]


def _image_region(region: Region, place: Place) -> bytes:
    """SCOORD with the outline as a closed polyline, selected from its source image."""
    image = items.image(SELECTED_FROM, codes.SOURCE, place.reference)
    return items.scoord(CONTAINS, codes.REGION, [*region.points, region.points[0]], image)
