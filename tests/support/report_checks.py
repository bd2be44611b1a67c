"""Checks of a report that no validator makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from pydicom.dataset import Dataset

from radnode.model import Reason
from radnode.report import received
from radnode.spacing import Basis, judge

_FLAGS = {"CompletionFlag": "COMPLETE", "PreliminaryFlag": "PRELIMINARY", "VerificationFlag": "UNVERIFIED"}
_QUALIFICATIONS = {"RESEARCH", "PRODUCT", "SERVICE"}
_SENTENCES = {reason.text for reason in Reason} | {basis.value for basis in Basis}
_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")


def problems(report: Dataset, sources: Sequence[Dataset] = ()) -> list[str]:
    """What is wrong with a report, one sentence each; none when it is as it should be.

    Where the images that it is about are given, it is held against them too.
    """
    found = [
        *_header(report),
        *_groups(report),
        *_outcome(report),
        *_references(report),
        *_comments(report),
    ]
    return [*found, *_against(report, sources)] if sources else found


def _header(report: Dataset) -> Iterator[str]:
    if name(report) != "126000":
        yield "The title is not 126000 Imaging Measurement Report."
    for keyword, value in _FLAGS.items():
        if report.get(keyword) != value:
            yield f"{keyword} is not {value}."
    if report.get("ContentQualification") not in _QUALIFICATIONS:
        yield "There is no Content Qualification."
    if "AI result" not in str(report.get("SeriesDescription")):
        yield "The series does not say that it is of an AI."
    devices = {
        str(device.get("DeviceUID"))
        for device in report.get("ContributingEquipmentSequence", [])
        if device.PurposeOfReferenceCodeSequence[0].CodeValue == "Newcode1"
    }
    observers = {str(item.UID) for item in children(report, "121012")}
    if not devices:
        yield "No contributing equipment is a processing algorithm."
    elif observers != devices:
        yield "The observer is not the device that contributed the result."


def _groups(report: Dataset) -> Iterator[str]:
    groups = measurement_groups(report)
    if not groups:
        yield "There is no measurement group."
    for index, group in enumerate(groups, 1):
        if not children(group, "112040"):
            yield f"Group {index} has no tracking UID."
        if not children(group, "111001") or not children(group, "111003"):
            yield f"Group {index} does not say which algorithm and version."
        if is_planar(group) and not any(map(is_region, group.ContentSequence)):
            yield f"Planar group {index} has no region on an image."
        if index > 1 and not (children(group, "121071") and children(group, "111012")):
            yield f"Group {index} has no finding with its certainty."
    uids = Counter(str(item.UID) for group in groups for item in children(group, "112040"))
    if any(count > 1 for count in uids.values()):
        yield "Two groups have one tracking UID."


def _outcome(report: Dataset) -> Iterator[str]:
    """A failure is never a negative, and the summary is that of the groups."""
    groups = measurement_groups(report)
    if not groups:
        return
    summary, status = (_value(groups[0], code) for code in ("111017", "111064"))
    said = {_value(item) for item in groups[0].ContentSequence if item.ValueType == "CODE"}
    if status == "111222":
        expected = "111242" if len(groups) > 1 else "111241"
        presence = "52101004" if summary == "111242" else "272519000"
        if summary not in {"111241", "111242"} or (len(groups) > 1 and summary != expected):
            yield "The summary is not that of the findings."
        if presence not in said:
            yield "It is not said whether the target is present or absent."
        if not children(groups[0], "111012"):
            yield "There is no score of the whole image."
    elif status in {"111224", "111225"}:
        if summary != "111245" or said & {"52101004", "272519000"} or len(groups) > 1 or children(groups[0], "111012"):
            yield "An analysis without result says that something is there, or is not."
        if not children(groups[0], "100") or not children(groups[0], "121106"):
            yield "An analysis without result gives no reason."
    else:
        yield "There is no status."


def _references(report: Dataset) -> Iterator[str]:
    evidence = _named(report)
    for item in walk(report):
        if item.ValueType == "IMAGE" and item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID not in evidence:
            yield "An image is referenced that the evidence does not name."
            return


def _comments(report: Dataset) -> Iterator[str]:
    """Free text is none: it could hold a patient's name."""
    if any(item.TextValue not in _SENTENCES for item in walk(report) if name(item) == "121106"):
        yield "A comment is not one of ours."


def _against(report: Dataset, sources: Sequence[Dataset]) -> Iterator[str]:
    by_uid = {source.SOPInstanceUID: source for source in sources}
    if set(by_uid) - _named(report):
        yield "The evidence lacks an image that was analysed."
    if {source.StudyInstanceUID for source in sources} != {report.StudyInstanceUID}:
        yield "The report is of another study."
    if report.SeriesInstanceUID in {source.SeriesInstanceUID for source in sources}:
        yield "The report is in the series of its images."
    for keyword in ("PatientID", "PatientName", "AccessionNumber"):
        if received.text(report, keyword) != received.text(sources[0], keyword):
            yield f"{keyword} is not that of the images."
    for group in measurement_groups(report)[1:]:
        for region in filter(is_region, children(group, "111030")):
            reference = region.ContentSequence[0].ReferencedSOPSequence[0]
            image = by_uid[reference.ReferencedSOPInstanceUID]
            if reference.get("ReferencedFrameNumber", 1) > int(image.get("NumberOfFrames") or 1):
                yield "A region is on a frame that is not there."
            columns, rows = region.GraphicData[::2], region.GraphicData[1::2]
            if min(columns) < 0 or max(columns) > image.Columns or min(rows) < 0 or max(rows) > image.Rows:
                yield "A region reaches out of its image."
        units = {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for item in _numbers(group)}
        # Functional groups of what the suite makes always hold the spacing of a slice.
        frames = "SharedFunctionalGroupsSequence" in sources[0]
        if "mm" in units and not frames and not judge(_reader(sources[0])).basis.in_patient:
            yield "A length is in mm, and no spacing holds in the patient."


def _reader(source: Dataset) -> Callable[[str], str]:
    return lambda keyword: received.text(source, keyword)


def _numbers(group: Dataset) -> list[Dataset]:
    return [item for item in group.ContentSequence if item.ValueType == "NUM"]


def _named(report: Dataset) -> set[str]:
    """The SOP Instance UIDs of the evidence."""
    return {
        instance.ReferencedSOPInstanceUID
        for keyword in _EVIDENCE
        for study in report.get(keyword, [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def _value(item: Dataset, code: str = "") -> str:
    """The code value of an item, or of its first child of a concept name."""
    found = children(item, code)[:1] if code else [item]
    return str(found[0].ConceptCodeSequence[0].CodeValue) if found else ""


def measurement_groups(report: Dataset) -> list[Dataset]:
    """The measurement groups; the first is that of the whole image."""
    return [item for item in walk(report) if name(item) == "125007"]


def is_planar(group: Dataset) -> bool:
    """Is it of TID 1410?"""
    return bool(group.ContentTemplateSequence[0].TemplateIdentifier == "1410")


def walk(item: Dataset) -> Iterator[Dataset]:
    """The content items under an item, depth first."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def name(item: Dataset) -> str:
    """The code value of the concept name of a content item."""
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def children(item: Dataset, code: str) -> list[Dataset]:
    """The content items directly under an item that have this concept name."""
    return [child for child in item.get("ContentSequence", []) if name(child) == code]


def is_region(item: Dataset) -> bool:
    """Is it an image region that is selected from an image?"""
    selected = [child.ValueType for child in item.get("ContentSequence", [])]
    return name(item) == "111030" and "IMAGE" in selected
