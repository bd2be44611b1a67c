"""The balance: what was acknowledged, and promised to be committed, held against what the PACS holds."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from support.crash import sources
from support.node import Orthanc

from hammering.images import digest
from hammering.ledger import Ledger
from hammering.pictures import compare, status

_FAILED = "111224"  # Status of Results of CAD detection
Key = tuple[str, str]  # SOP Instance UID of the source, Series Instance UID of the report: one model version's results


@dataclass
class Balance:
    """What became of every image; UIDs, so that each can be looked for.

    Attributes:
        acknowledged: images of which a modality was told that they are kept.
        once: those with exactly one current report at the PACS (one that no later one names as its predecessor).
        twice: images with two current reports of the same model version, or a report that is stored twice.
        lost: acknowledged images without a current report.
        unknown: images that were reported or forwarded and that nobody sent.
        failed: current reports that say that an analysis failed: no image and no blow gives a reason for it.
        unpictured: reports with a result that has no picture.
        pictured_twice: reports of which two pictures show the same image, or that have too many.
        orphaned: pictures that belong to no report at the PACS.
        unforwarded: acknowledged images that a rule forwards and that the PACS has not.
        altered: forwarded images whose data sets at the PACS are not bit for bit those that were sent.
        uncommitted: acknowledged images of which the node said, when asked to commit them, that it has them not.
        unanswered: requests for a storage commitment to which no answer, or not the whole one, came.
    """

    acknowledged: set[str]
    once: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    unpictured: set[str] = field(default_factory=set)
    pictured_twice: set[str] = field(default_factory=set)
    orphaned: set[str] = field(default_factory=set)
    unforwarded: set[str] = field(default_factory=set)
    altered: set[str] = field(default_factory=set)
    uncommitted: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    forwarded: int = 0
    reports: int = 0
    predecessors: int = 0
    pictures: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def is_even(self) -> bool:
        """Whether nothing was lost, altered or reported twice, and every promise was kept."""
        return not any(found for _, found in self.faults())

    def faults(self) -> Iterator[tuple[str, set[str]]]:
        """Yield what must be empty, by the name that the table gives it."""
        yield "reported twice", self.twice
        yield "lost", self.lost
        yield "nobody's", self.unknown
        yield "analysis failed", self.failed
        yield "without its picture", self.unpictured
        yield "pictured twice", self.pictured_twice
        yield "picture of no report", self.orphaned
        yield "not forwarded", self.unforwarded
        yield "forwarded altered", self.altered
        yield "commitment refused", self.uncommitted
        yield "commitment unanswered", self.unanswered


def draw_up(ledger: Ledger, objects: Iterable[bytes]) -> Balance:
    """Hold everything that a PACS has (Part 10 files: reports, pictures, forwarded images) against the ledger."""
    reports, pictures, forwarded = list[Dataset](), list[Dataset](), dict[str, str]()
    for content in objects:
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        if dataset.Modality == "SR":
            reports.append(dataset)
        elif dataset.SOPClassUID == SecondaryCaptureImageStorage:
            pictures.append(dataset)
        else:
            forwarded[str(dataset.SOPInstanceUID)] = digest(content)
    replaced = {uid for report in reports for uid in _predecessors(report)}
    standing = list[Dataset]()
    current: defaultdict[Key, list[str]] = defaultdict(list)
    for report in reports:
        if report.SOPInstanceUID not in replaced:
            standing.append(report)
            for source in sources(report):
                current[source, str(report.SeriesInstanceUID)].append(str(report.SOPInstanceUID))
    counts = {"forwarded": len(forwarded), "reports": len(reports), "predecessors": len(replaced)}
    counts["pictures"] = len(pictures)
    balance = Balance(set(ledger.acknowledged), **counts)
    reported = {source for source, _ in current}
    balance.twice = {source for (source, _), found in current.items() if len(found) > 1}
    balance.once = (balance.acknowledged & reported) - balance.twice
    balance.lost = balance.acknowledged - reported
    balance.unknown = (reported | set(forwarded)) - set(ledger.sent)
    said = {str(report.SOPInstanceUID): status(report) for report in standing}
    balance.failed = {uid for uid, code in said.items() if code.CodeValue == _FAILED}
    balance.statuses = Counter(str(code.CodeMeaning) for code in said.values())
    held = compare(reports, pictures)
    balance.unpictured, balance.pictured_twice, balance.orphaned = held.missing, held.twice, held.orphaned
    due = {uid for uid in balance.acknowledged if ledger.images[uid].is_forwarded}
    balance.unforwarded = due - set(forwarded)
    sent = {uid: ledger.images[uid].digest for uid in forwarded if uid in ledger.images}
    balance.altered = {uid for uid, expected in sent.items() if forwarded[uid] != expected}
    balance.uncommitted, balance.unanswered = set(ledger.uncommitted), ledger.unanswered
    return balance


def objects_of(pacs: Orthanc) -> Iterator[bytes]:
    """Yield all that a PACS holds, as Part 10 files."""
    for identifier in pacs.get("/instances"):
        yield pacs.get_bytes(f"/instances/{identifier}/file")


def table(balance: Balance, ledger: Ledger) -> Iterator[str]:
    """Yield the lines of the balance."""
    offered = f"of {len(ledger.sent)} images, offered {ledger.sent.total()} times"
    yield line("acknowledged", len(balance.acknowledged), offered)
    replaced = f"{balance.reports} reports at the PACS, {balance.predecessors} of them replaced by later ones"
    yield line("reported exactly once", len(balance.once), replaced)
    yield line("current reports", balance.statuses.total(), f"analyses: {listed(balance.statuses)}")
    yield line("pictures", balance.pictures, "at the PACS, of the reports with a result")
    yield line("forwarded", balance.forwarded, "images at the PACS, bit for bit as they were sent")
    yield line("commitments promised", len(ledger.asked), f"of {len(ledger.images)} images, asked for in turn")
    for title, found in balance.faults():
        yield line(title, len(found), " ".join(sorted(found)[:3]))
    yield line("associations failed", ledger.broken_off, f"answers: {listed(ledger.answers)}")


def line(title: str, value: object, remark: str) -> str:
    """Return one line of the table."""
    return f"{title:<24}{value!s:>7}   {remark}".rstrip()


def listed(counts: Counter[str]) -> str:
    """Return counts by name in one line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _predecessors(report: Dataset) -> Iterator[str]:
    """Yield the reports that this one replaces (PS3.3 C.17.2, Predecessor Documents Sequence)."""
    for study in report.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                yield str(item.ReferencedSOPInstanceUID)
