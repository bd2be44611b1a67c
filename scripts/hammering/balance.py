"""The balance: what was acknowledged, held against what the PACS holds."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pydicom
from pydicom.dataset import Dataset
from support.crash import sources
from support.node import Orthanc

from hammering.ledger import Ledger

Key = tuple[str, str]  # SOP Instance UID of the source, Series Instance UID of the report: one model version's results


@dataclass
class Balance:
    """What became of every image; UIDs, so that each can be looked for.

    Attributes:
        acknowledged: images of which a modality was told that they are kept.
        once: those with exactly one current report at the PACS (one that no later one names as its predecessor).
        twice: images with two current reports of the same model version, or a report that is stored twice.
        lost: acknowledged images without a current report.
        unknown: images that were reported and that nobody sent.
    """

    acknowledged: set[str]
    once: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    reports: int = 0
    predecessors: int = 0

    @property
    def is_even(self) -> bool:
        """Whether nothing was lost and nothing reported twice."""
        return not (self.twice or self.lost or self.unknown)


def draw_up(ledger: Ledger, pacs: Orthanc) -> Balance:
    """Read every report of a PACS and hold them against the ledger."""
    reports = list(_reports(pacs))
    replaced = {uid for report in reports for uid in _predecessors(report)}
    current: defaultdict[Key, list[str]] = defaultdict(list)
    for report in reports:
        if report.SOPInstanceUID not in replaced:
            for source in sources(report):
                current[source, str(report.SeriesInstanceUID)].append(str(report.SOPInstanceUID))
    balance = Balance(set(ledger.acknowledged), reports=len(reports), predecessors=len(replaced))
    reported = {source for source, _ in current}
    balance.twice = {source for (source, _), found in current.items() if len(found) > 1}
    balance.once = (balance.acknowledged & reported) - balance.twice
    balance.lost = balance.acknowledged - reported
    balance.unknown = reported - set(ledger.sent)
    return balance


def reported(pacs: Orthanc) -> int:
    """Return how many instances a PACS holds; all of them are reports."""
    return int(pacs.get("/statistics")["CountInstances"])


def table(balance: Balance, ledger: Ledger) -> Iterator[str]:
    """Yield the lines of the balance."""
    offered = f"of {len(ledger.sent)} images, offered {ledger.sent.total()} times"
    yield line("acknowledged", len(balance.acknowledged), offered)
    replaced = f"{balance.reports} reports at the PACS, {balance.predecessors} of them replaced by later ones"
    yield line("reported exactly once", len(balance.once), replaced)
    for title, found in (("reported twice", balance.twice), ("lost", balance.lost), ("nobody's", balance.unknown)):
        yield line(title, len(found), " ".join(sorted(found)[:3]))
    yield line("associations failed", ledger.broken_off, f"answers: {listed(ledger.answers)}")


def line(title: str, value: object, remark: str) -> str:
    """Return one line of the table."""
    return f"{title:<24}{value!s:>7}   {remark}".rstrip()


def listed(counts: Counter[str]) -> str:
    """Return counts by name in one line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _reports(pacs: Orthanc) -> Iterator[Dataset]:
    for identifier in pacs.get("/instances"):
        yield pydicom.dcmread(io.BytesIO(pacs.get_bytes(f"/instances/{identifier}/file")))


def _predecessors(report: Dataset) -> Iterator[str]:
    """Yield the reports that this one replaces (PS3.3 C.17.2, Predecessor Documents Sequence)."""
    for study in report.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                yield str(item.ReferencedSOPInstanceUID)
