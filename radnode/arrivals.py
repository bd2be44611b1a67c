"""Arrivals: instance, jobs and audit entry in one commit, shared by all who wait for one at that moment.

A commit costs one write to the disk however many rows it holds. Who finds none running leads: it commits for itself at
once, and what arrives meanwhile waits and is committed together next, led by the first of those who wait. So a single
association never waits for others, and many never wait for each other's turns.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from radnode import baton
from radnode.audit import events
from radnode.audit.events import AuditRecord
from radnode.errors import KeyUnavailable, StoreUnavailable
from radnode.failpoints import reach
from radnode.jobs.index import InstanceRow, add_instance
from radnode.jobs.patients import StudyPatients
from radnode.jobs.writer import Writer
from radnode.model import JobKind, NewJob
from radnode.observe import logger
from radnode.prepared import OpenTransaction, Prepared
from radnode.storage.keys import study_keys
from radnode.stores import Stores

_HAS_KEY = Prepared(select(func.count()).where(study_keys.c.key_id == bindparam("key_id")), [])
_WORKED_BY = {JobKind.ANALYSE: "worker", JobKind.DELIVER: "deliver", JobKind.FORWARD: "deliver"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One instance whose object is durable; `jobs` is what is to be done with it.

    `key_id` is the study key that seals it: it must be there still when this is committed. None: nobody asks.
    """

    row: InstanceRow
    record: AuditRecord
    jobs: tuple[NewJob, ...]
    key_id: bytes | None = None


class Arrivals:
    """Commits arrivals into one node's stores; shared by the threads of a process."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._writer = Writer(stores.engine)
        self._patients = StudyPatients()
        self._guard = threading.Lock()
        self._led = False  # whether a thread leads, or was told to
        self._waiting: deque[_Ticket] = deque()

    def commit(self, arrival: Arrival) -> bool:
        """Return True when instance, jobs and audit entry are durable; False: it was known, nothing was written.

        Raises:
            StoreUnavailable: the database cannot be written now; nothing of this arrival was.
            AuditError: the audit entry cannot be written; nothing of this arrival was.
            KeyUnavailable: the study was purged while the instance arrived.
        """
        ticket = _Ticket(arrival, self._stores.audit.compose(arrival.record))
        with self._guard:
            self._waiting.append(ticket)
            if not self._led:
                self._call_next()
        try:
            if not ticket.called.acquire(blocking=False):
                with baton.waiting:
                    ticket.called.acquire()
        except BaseException:  # Ctrl-C in this thread, which others may be waiting for
            self._leave(ticket)
            raise
        if ticket.leads:
            self._lead()
        if isinstance(ticket.outcome, bool):
            return ticket.outcome
        raise ticket.outcome

    def _call_next(self) -> None:
        """Make the first who waits lead, if there is one; the guard is held."""
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].leads = True
            self._waiting[0].called.release()

    def _leave(self, ticket: _Ticket) -> None:
        with self._guard:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                if ticket.leads:
                    self._call_next()

    def _lead(self) -> None:
        """Commit for everybody who waits now, this thread among them; then let the first of the others lead."""
        with self._guard:
            group = list(self._waiting)
            self._waiting.clear()
        try:
            self._settle(group)
        finally:
            with self._guard:
                self._call_next()
            for ticket in group[1:]:
                ticket.called.release()
        new = [ticket for ticket in group if ticket.outcome is True]
        for role in dict.fromkeys(_WORKED_BY[job.kind] for ticket in new for job in ticket.arrival.jobs):
            self._stores.wake(role)

    def _settle(self, group: list[_Ticket]) -> None:
        """Give every ticket its outcome; what one of them breaks, the others do not share."""
        try:
            self._write(group)
        except StoreUnavailable as error:  # no fault of any arrival, and each would wait for it again
            self._patients.forget()
            for ticket in group:
                ticket.outcome = StoreUnavailable(str(error))
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to the threads that wait)
            self._patients.forget()
            if len(group) == 1:
                group[0].outcome = error
                return
            for ticket in group:
                self._settle([ticket])

    def _require_keys(self, tx: OpenTransaction, key_ids: set[bytes | None]) -> None:
        """See that the study keys of arrivals were not destroyed: what is sealed under one could never be opened.

        Raises:
            KeyUnavailable: a study was purged; one that is not is fine when it comes alone.
        """
        for key_id in key_ids:
            if key_id is not None and not _HAS_KEY.scalar(tx, {"key_id": key_id}):
                self._stores.vault.forget(key_id)
                raise KeyUnavailable("The study was purged while the image arrived; send it again.")

    def _write(self, group: list[_Ticket]) -> None:
        with self._writer.transaction() as tx:
            self._require_keys(tx, {ticket.arrival.key_id for ticket in group})
            new = [add_instance(tx, ticket.arrival.row) for ticket in group]
            added = [ticket for ticket, is_new in zip(group, new, strict=True) if is_new]
            arrived = [ticket.arrival for ticket in added]
            mixed = [it for it in arrived if self._patients.add(tx, it.row.study, it.row.patient)]
            wanted: dict[tuple[JobKind, str, int], list[str]] = {}
            for job in [job for arrival in arrived for job in arrival.jobs]:
                wanted.setdefault((job.kind, job.destination, job.priority), []).append(job.subject)
            for (kind, destination, priority), subjects in wanted.items():
                self._stores.queue.add_all(tx, kind, subjects, destination, priority)
            if added:
                alerts = [self._stores.audit.compose(_alert(arrival)) for arrival in mixed]
                self._stores.audit.append(tx, [*(ticket.entry for ticket in added), *alerts])
            reach("arrival-uncommitted")
        for row in (arrival.row for arrival in mixed):
            about = {"study": row.study, "patient": row.patient, "instance": row.instance, "ae": row.peer}
            advice = "Find out whose images these are: the study has another patient already."
            logger().warning("study_of_two_patients", **about, rule="study_of_two_patients", advice=advice)
        for ticket, is_new in zip(group, new, strict=True):
            ticket.outcome = is_new


def _alert(arrival: Arrival) -> AuditRecord:
    """Return the entry that says that a study has got another patient."""
    row, detail = arrival.row, {"rule": "study_of_two_patients"}
    return AuditRecord(
        events.ALERT,
        arrival.record.actor,
        patient=row.patient,
        study=row.study,
        instance=row.instance,
        detail=detail,
    )


class _Ticket:
    """One arrival that waits to be called: to lead, or to take its outcome."""

    __slots__ = ("arrival", "called", "entry", "leads", "outcome")

    def __init__(self, arrival: Arrival, entry: str) -> None:
        self.arrival = arrival
        self.entry = entry
        self.called = threading.Lock()
        self.called.acquire()
        self.leads = False
        self.outcome: bool | Exception = StoreUnavailable("The commit was interrupted; send the instance again.")
