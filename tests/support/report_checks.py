"""Checks of a report that no validator makes."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset


def problems(report: Dataset) -> list[str]:
    """What is wrong with a report, one sentence each; none when it is as it should be."""
    found = []
    if name(report) != "126000":
        found.append("The title is not 126000 Imaging Measurement Report.")
    groups = [item for item in walk(report) if name(item) == "125007"]
    if not groups:
        found.append("There is no measurement group.")
    for index, group in enumerate(groups, 1):
        if not children(group, "112040"):
            found.append(f"Group {index} has no tracking UID.")
        if group.ContentTemplateSequence[0].TemplateIdentifier == "1410" and not any(
            map(is_region, group.ContentSequence)
        ):
            found.append(f"Planar group {index} has no region on an image.")
    evidence = {
        instance.ReferencedSOPInstanceUID
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in report.get(keyword, [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    for item in walk(report):
        if item.ValueType == "IMAGE" and item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID not in evidence:
            found.append("An image is referenced that the evidence does not name.")
    return found


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
    return name(item) == "111030" and (item.ValueType == "SCOORD3D" or "IMAGE" in selected)
