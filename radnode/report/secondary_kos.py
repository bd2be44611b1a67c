"""The Key Object Selection Document (PS3.3 A.35.4, TID 2010): images with findings, their report and its pictures."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Concept
from pydicom.uid import KeyObjectSelectionDocumentStorage

from radnode.report import codes, header
from radnode.report.secondary_header import Origin, begin, reference
from radnode.report.secondary_picture import WARNING

_OF_INTEREST = Concept("113000", "DCM", "Of Interest")  # PS3.16 CID 7010
_DESCRIPTION = Concept("113012", "DCM", "Key Object Description")
_OBSERVER_TYPE = Concept("121005", "DCM", "Observer Type")
_DEVICE = Concept("121007", "DCM", "Device")
_DEVICE_UID = Concept("121012", "DCM", "Device Observer UID")
_DEVICE_NAME = Concept("121013", "DCM", "Device Observer Name")


def key_objects(origin: Origin, report: Dataset, pictures: Sequence[Dataset]) -> Dataset | None:
    """Return the selection; None where no finding lies on an image. `report` is the header of the structured report."""
    regions = [finding.region for finding in origin.analysis.findings if finding.region is not None]
    if not regions:
        return None
    if len(origin.sources) > 1:
        frames = sorted({region.frame or 1 for region in regions})
        images, named = [origin.source_of(frame) for frame in frames], [origin.reference(frame) for frame in frames]
    else:
        numbers = {region.frame for region in regions}
        images, named = [origin.sources[0]], [origin.reference(*sorted(numbers, key=lambda frame: frame or 0))]
    made = begin(origin, "kos", 1, KeyObjectSelectionDocumentStorage, "KO")
    made.ReferencedPerformedProcedureStepSequence = []
    header.add_request(made, origin.sources[0])
    header.add_evidence(made, [*images, report, *pictures])
    made.ValueType = "CONTAINER"
    made.ConceptNameCodeSequence = [CodedConcept.from_code(_OF_INTEREST)]
    made.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "2010"
    made.ContentTemplateSequence = [template]
    model = origin.analysis.model
    text = f"{WARNING}. Findings of {codes.ascii_text(f'{model.name} {model.version}')}."
    made.ContentSequence = [
        _item("HAS OBS CONTEXT", "CODE", _OBSERVER_TYPE, ConceptCodeSequence=[CodedConcept.from_code(_DEVICE)]),
        _item("HAS OBS CONTEXT", "UIDREF", _DEVICE_UID, UID=model.device_uid),
        _item("HAS OBS CONTEXT", "TEXT", _DEVICE_NAME, TextValue=codes.ascii_text(model.name)),
        _item("CONTAINS", "TEXT", _DESCRIPTION, TextValue=text),
        *(_item("CONTAINS", "IMAGE", None, ReferencedSOPSequence=[item]) for item in named),
        *(_item("CONTAINS", "IMAGE", None, ReferencedSOPSequence=[reference(picture)]) for picture in pictures),
        _item("CONTAINS", "COMPOSITE", None, ReferencedSOPSequence=[reference(report)]),
    ]
    return made


def _item(relationship: str, value_type: str, name: Concept | None, **values: object) -> Dataset:
    """Return a content item with these elements, by keyword."""
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = [CodedConcept.from_code(name)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
