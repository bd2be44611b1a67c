"""The pictures at the PACS held against the reports there: each report with a result has its own, and no other has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from support.crash import sources
from support.report_checks import children, measurement_groups

from radnode.model import MAX_PICTURES

_DETECTIONS = "111064"  # Status of Results of CAD detection (PS3.16 TID 1500)
_SUCCEEDED = "111222"
_Moment = tuple[str, str]  # Content Date and Time: when the node took the last image, in a report and its pictures


@dataclass(frozen=True, slots=True)
class Pictures:
    """What became of the pictures; SOP Instance UIDs.

    Attributes:
        missing: reports with a result, and without a picture.
        twice: reports with two pictures of one image, or with more than a report may have.
        orphaned: pictures of no report with a result.
    """

    missing: set[str]
    twice: set[str]
    orphaned: set[str]


def compare(reports: Sequence[Dataset], pictures: Sequence[Dataset]) -> Pictures:
    """Hold pictures (Secondary Capture) against reports, those that later ones replace too."""
    made = [report for report in reports if status(report).CodeValue == _SUCCEEDED]
    report_of: dict[tuple[str, _Moment], str] = {}
    for report in made:
        for source in sources(report):
            report_of[source, _moment(report)] = str(report.SOPInstanceUID)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by report, how often each image is pictured
    orphaned = set()
    for picture in pictures:
        source = str(picture.SourceImageSequence[0].ReferencedSOPInstanceUID)
        report = report_of.get((source, _moment(picture)))
        if report is None:
            orphaned.add(str(picture.SOPInstanceUID))
        else:
            counts[report][source] += 1
    missing = {str(report.SOPInstanceUID) for report in made} - set(counts)
    twice = {uid for uid, count in counts.items() if max(count.values()) > 1 or len(count) > MAX_PICTURES}
    return Pictures(missing, twice, orphaned)


def status(report: Dataset) -> Dataset:
    """Return the code that says whether an analysis came to an end: else the report says why, and has no picture."""
    (found,) = children(measurement_groups(report)[0], _DETECTIONS)
    code: Dataset = found.ConceptCodeSequence[0]
    return code


def _moment(dataset: Dataset) -> _Moment:
    return str(dataset.ContentDate), str(dataset.ContentTime)
