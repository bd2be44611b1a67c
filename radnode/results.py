"""Results: what was said about an instance, sealed, committed in one transaction, and read back under audit.

A result is two sealed objects, the findings (JSON) and the report (DICOM), one for each of its secondary objects, and
the rows that name them. Rows, delivery jobs and audit entries are one commit; so is the end of the job that asked for
the analysis.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import Actor, AuditOutcome, AuditRecord
from radnode.errors import NotFoundError, RadnodeError
from radnode.failpoints import reach
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import (
    InstanceRow,
    ResultRow,
    SecondaryRow,
    add_result,
    add_secondary,
    find_result,
    get_result,
    last_report_on,
    list_results,
    secondary_of,
)
from radnode.jobs.register import JobRow
from radnode.jobs.scores import count_score
from radnode.jobs.sendings import find_sending
from radnode.model import Analysis, Code, Finding, JobKind, JobState, Outcome, Region
from radnode.rules import Decision
from radnode.settings import SECONDARY_KINDS
from radnode.storage.sealing import Kind
from radnode.stores import Stores

Document = dict[str, Any]
DELIVERY = {  # what the state of a delivery job means to who reads the result
    JobState.DONE: "delivered",
    JobState.READY: "waiting",
    JobState.LEASED: "sending",
    JobState.DEAD: "refused",
}

_SHOWS = {"html": "sc", "pdf": "sc"}  # the kind of secondary object that a page is made with


@dataclass(frozen=True, slots=True)
class Report:
    """An encoded structured report (Part 10) and its SOP Instance UID."""

    SOPInstanceUID: str
    part10: bytes


@dataclass(frozen=True, slots=True)
class Secondary:
    """An encoded secondary object (Part 10): its kind (`settings.SecondaryKind`) and which of that kind, from 1."""

    kind: str
    number: int
    SOPInstanceUID: str
    part10: bytes

    @property
    def name(self) -> str:
        """Kind and number, as in "sc1"."""
        return f"{self.kind}{self.number}"


@dataclass(frozen=True, slots=True)
class Exported:
    """A result as it is stored: what `show` gives, the report as a DICOM file, and the secondary objects asked for."""

    document: Document
    report: bytes
    secondary: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A result whose objects are durable and whose commit is still to come."""

    row: ResultRow
    analysis: Analysis
    report: str  # pseudonym of the report's SOP instance
    identity: dict[str, str]
    secondary: tuple[SecondaryRow, ...] = ()


class Results:
    """The results of one node; `taken`: the kinds of secondary objects that a destination takes, all where unsaid."""

    def __init__(self, stores: Stores, taken: Mapping[str, Collection[str]] | None = None) -> None:
        self._stores = stores
        self._taken = taken or {}

    def prepare(
        self,
        instance: InstanceRow,
        source: Mapping[str, str],
        analysis: Analysis,
        report: Report,
        images: Sequence[str] = (),
        secondary: Sequence[Secondary] = (),
    ) -> Prepared | None:
        """Seal one result and make it durable; None when the same result is stored already.

        `source` holds PatientID, StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID as received. Where a whole
        series was analysed, `images` are the SOP Instance UIDs that `Region.frame` counts, and `instance` the first.
        """
        identifier = self._stores.pseudonyms.result(instance.instance, report.SOPInstanceUID)
        with reading(self._stores.engine) as tx:
            if find_result(tx, identifier) is not None:
                return None
        created = self._stores.clock()
        document = {"id": identifier, "created": created, **analysis_document(analysis)}
        document["source"] = {key: source[key] for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
        if images:
            document["source"]["images"] = list(images)
        document["report"] = {"SOPInstanceUID": report.SOPInstanceUID}
        document["secondary"] = [
            {"object": item.name, "kind": item.kind, "SOPInstanceUID": item.SOPInstanceUID} for item in secondary
        ]
        put, sealed = self._stores.vault.put, list[bytes]()
        try:
            sealed.append(put(instance.study, Kind.RESULT, json.dumps(document).encode()))
            reach("findings-sealed")
            sealed.append(put(instance.study, Kind.REPORT, report.part10))
            for item in secondary:
                sealed.append(put(instance.study, Kind.SECONDARY, item.part10))
        except RadnodeError:
            for done in sealed:
                self._stores.vault.discard(done)
            raise
        reach("result-sealed")
        object_id, report_id, *others = sealed
        row = ResultRow(
            result=identifier,
            instance=instance.instance,
            patient=instance.patient,
            study=instance.study,
            model=f"{analysis.model.name} {analysis.model.version}",
            object_id=object_id,
            report_id=report_id,
            created=created,
        )
        rows = tuple(
            SecondaryRow(f"{identifier}.{item.name}", identifier, other)
            for item, other in zip(secondary, others, strict=True)
        )
        return Prepared(row, analysis, self._stores.pseudonyms.instance(report.SOPInstanceUID), dict(source), rows)

    def commit(self, tx: Connection, prepared: Sequence[Prepared], decision: Decision, actor: Actor) -> None:
        """Add results, the delivery jobs that the rules decided and the audit entries to the caller's transaction.

        A result that was committed by another since it was prepared is left out.
        """
        for result in prepared:
            if find_result(tx, result.row.result) is not None:
                continue
            add_result(tx, result.row)
            add_secondary(tx, result.secondary)
            if result.analysis.score is not None:
                count_score(tx, result.row.model, result.analysis.score, result.row.created)
            for destination in decision.deliver:
                subjects = [result.row.result, *self._wanted(result.secondary, destination)]
                self._stores.queue.add_all(tx, JobKind.DELIVER, subjects, destination, decision.priority)
            failed = result.analysis.outcome is Outcome.FAILED
            detail: dict[str, str | int] = {"result": result.row.result, "outcome": result.analysis.outcome.value}
            if result.analysis.reason is not None:
                detail["reason"] = result.analysis.reason.value
            common: dict[str, Any] = {"patient": result.row.patient, "study": result.row.study}
            common |= {"instance": result.row.instance, "model": result.row.model, "identity": result.identity}
            outcome = AuditOutcome.SERIOUS if failed else AuditOutcome.SUCCESS
            analysed = AuditRecord(events.IMAGE_ANALYSED, actor, outcome=outcome, detail=detail, **common)
            created = AuditRecord(
                events.REPORT_CREATED, actor, detail={"result": result.row.result, "report": result.report}, **common
            )
            self._stores.audit.record(tx, analysed)
            self._stores.audit.record(tx, created)

    def discard(self, prepared: Sequence[Prepared]) -> None:
        """Remove the objects of results whose commit did not happen; what the index names stays."""
        for result in prepared:
            row = result.row
            try:
                with reading(self._stores.engine) as tx:
                    found = find_result(tx, row.result)
                discard = self._stores.vault.discard
            except RadnodeError:
                found, discard = None, self._stores.vault.leave
            if found is None or found.object_id != row.object_id:
                for object_id in (row.object_id, row.report_id, *(item.object_id for item in result.secondary)):
                    discard(object_id)

    def last_report(self, instance: InstanceRow, detector: str) -> bytes | None:
        """Return the last report (Part 10) that any version of a detector made about an image, None for none."""
        with reading(self._stores.engine) as tx:
            report_id = last_report_on(tx, instance.instance, detector)
        return None if report_id is None else self._stores.vault.get(report_id)

    def announce(self) -> None:
        """Wake whoever has work after a commit."""
        self._stores.wake("deliver")

    def listing(self, actor: Actor, patient: str | None = None, limit: int = 1000) -> list[Document]:
        """Return results, newest first, of one patient (a pseudonym) or of all; audited once a patient.

        A search for a patient that finds nothing is audited too.
        """
        with reading(self._stores.engine) as tx:
            rows = list_results(tx, patient, limit)
        documents = [self._document(row) for row in rows]
        counts = Counter(row.patient for row in rows) or ({} if patient is None else {patient: 0})
        with transaction(self._stores.engine) as tx:
            for found, count in counts.items():
                detail: dict[str, str | int] = {"command": "list", "count": count}
                self._stores.audit.record(tx, AuditRecord(events.RESULT_READ, actor, patient=found, detail=detail))
        return documents

    def show(self, result: str, actor: Actor) -> Document:
        """Return one result; the reading is audited.

        Raises:
            NotFoundError: there is none of that id.
        """
        with reading(self._stores.engine) as tx:
            row = get_result(tx, result)
        document = self._document(row)
        self._record(row, events.RESULT_READ, actor, {"command": "show"})
        return document

    def export(self, result: str, actor: Actor, form: str = "sr") -> Exported:
        """Return a result as it is stored, with its secondary objects of the kind that the form needs, in their order.

        The export is audited with its form.

        Raises:
            NotFoundError: there is none of that id, or the form is a kind of secondary object that it has not.
        """
        with reading(self._stores.engine) as tx:
            row = get_result(tx, result)
            others = secondary_of(tx, result)
        if form in SECONDARY_KINDS and not any(item.kind == form for item in others):
            raise NotFoundError(
                f"The result {result} has no {form}: it has no finding to show, or no rule asks for it."
            )
        get, kind = self._stores.vault.get, _SHOWS.get(form, form)
        secondary = tuple(get(item.object_id) for item in others if item.kind == kind)
        found = Exported(self._document(row), get(row.report_id), secondary)
        self._record(row, events.RESULT_EXPORTED, actor, {"format": form})
        return found

    def _document(self, row: ResultRow) -> Document:
        document: Document = json.loads(self._stores.vault.get(row.object_id))
        document.setdefault("secondary", [])  # results of versions that made none
        with reading(self._stores.engine) as tx:
            document["delivered"] = self._deliveries(tx, row.result)
            for item in document["secondary"]:
                item["delivered"] = self._deliveries(tx, f"{row.result}.{item['object']}")
        return document

    def _deliveries(self, tx: Connection, subject: str) -> list[Document]:
        """Return where an object is to go and what became of it there."""
        return [
            {
                "destination": job.destination,
                "state": _delivery(job, find_sending(tx, job.kind, job.subject, job.destination) is not None),
                "tries": job.attempts,
            }
            for job in self._stores.queue.of_subject(tx, JobKind.DELIVER, subject)
        ]

    def _wanted(self, secondary: Sequence[SecondaryRow], destination: str) -> list[str]:
        """Return which secondary objects go to a destination."""
        kinds = self._taken.get(destination)
        return [item.secondary for item in secondary if kinds is None or item.kind in kinds]

    def _record(self, row: ResultRow, event: events.Event, actor: Actor, detail: Mapping[str, str | int]) -> None:
        record = AuditRecord(
            event,
            actor,
            patient=row.patient,
            study=row.study,
            instance=row.instance,
            model=row.model,
            detail={**detail, "result": row.result},
        )
        with transaction(self._stores.engine) as tx:
            self._stores.audit.record(tx, record)


def _delivery(job: JobRow, is_sent: bool) -> str:
    """Return what the state of a delivery means; `is_sent`: the destination has taken it and not committed it yet."""
    return "sent" if is_sent and job.state is JobState.READY else DELIVERY[job.state]


def analysis_document(analysis: Analysis) -> Document:
    """Return an analysis as the document that `results show --json` prints."""
    model = analysis.model
    return {
        "outcome": analysis.outcome.value,
        "reason": None if analysis.reason is None else analysis.reason.value,
        "score": analysis.score,
        "peak": None if analysis.peak is None else list(analysis.peak),
        "findings": [_finding(finding) for finding in analysis.findings],
        "model": {"name": model.name, "version": model.version, "device_uid": model.device_uid},
    }


def _finding(finding: Finding) -> Document:
    outlines = {"outlines": [_region(outline) for outline in finding.outlines]} if finding.outlines else {}
    return {
        "code": finding.code.value,
        "scheme": finding.code.scheme,
        "meaning": finding.code.meaning,
        "score": finding.score,
        "site": _code(finding.site),
        "laterality": _code(finding.laterality),
        "region": _region(finding.region),
        "diameter_mm": finding.diameter_mm,
        "volume_mm3": finding.volume_mm3,
        **outlines,
    }


def _code(code: Code | None) -> Document | None:
    return None if code is None else {"code": code.value, "scheme": code.scheme, "meaning": code.meaning}


def _region(region: Region | None) -> Document | None:
    if region is None:
        return None
    return {"kind": region.kind, "points": [list(point) for point in region.points], "frame": region.frame}
