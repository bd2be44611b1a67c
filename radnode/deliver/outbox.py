"""The outbox: reports on their way to their destinations.

One thread a destination, so that nothing waits behind one that is dead. A report is delivered when the destination
answered the C-STORE with success; the end of the job and the audit entry are one commit. An unavailable destination is
tried again with growing pauses, without end; a refusal for good makes a dead letter.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from radnode.audit import events
from radnode.audit.events import MAX_DETAIL_LENGTH, Actor, AuditRecord, Event
from radnode.deliver.patience import pause
from radnode.deliver.promises import CommittingPeer, Promises
from radnode.errors import (
    DeliveryError,
    DestinationHolds,
    DestinationRefused,
    MalformedDataSet,
    NotFoundError,
    RadnodeError,
    SealBroken,
    StaleLease,
)
from radnode.failpoints import reach
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import ResultRow, get_result
from radnode.model import JobKind, Lease
from radnode.settings import DeliverSettings, DestinationSettings
from radnode.stores import Stores

BATCH = 16
IDLE_SECONDS = 5.0
PAUSE_SECONDS = 1.0  # after trouble of this node's own


class StoragePeer(CommittingPeer, Protocol):
    """An open association with a Storage SCP."""

    def store(self, part10: bytes) -> object:
        """Send one object; DestinationUnavailable or DestinationRefused when it was not taken."""


Connect = Callable[[DestinationSettings], AbstractContextManager[StoragePeer]]


class Courier:
    """Brings reports to one destination; with `promises` a report is delivered once that has committed it."""

    def __init__(
        self,
        destination: DestinationSettings,
        stores: Stores,
        *,
        connect: Connect,
        settings: DeliverSettings,
        actor: Actor,
        owner: str,
        log: Any,
        promises: Promises | None = None,
    ) -> None:
        self._destination = destination
        self._stores = stores
        self._connect = connect
        self._settings = settings
        self._actor = actor
        self._owner = owner
        self._log = log.bind(destination=destination.name)
        self._bell = threading.Event()
        self._promises = promises

    def ring(self) -> None:
        """Say that there may be work."""
        self._bell.set()

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set."""
        interrupted = False  # whether a step failed midway and its leases are still to be given back
        while not stop.is_set():
            self._bell.clear()
            try:
                if interrupted:
                    self._stores.queue.release(self._owner, counted=False)
                    interrupted = False
                rest = 0.0 if self.step() else self._idle_seconds()
            except RadnodeError as error:  # this node's own trouble (database, disk): wait and go on
                self._log.error("delivery_stalled", error=type(error).__name__, message=str(error))
                interrupted = True
                rest = PAUSE_SECONDS
            self._bell.wait(rest)

    def step(self) -> int:
        """Try one batch of due deliveries; return how many there were."""
        seconds = BATCH * self._settings.timeout_seconds + 60
        leases = self._stores.queue.lease(JobKind.DELIVER, self._owner, seconds, BATCH, self._destination.name)
        waiting = list(leases)
        sending = False
        asking: list[tuple[Lease, bytes]] = []
        try:
            if waiting:
                with self._connect(self._destination) as peer:
                    sending = True
                    while waiting:
                        report = self._deliver(peer, waiting[0])
                        lease = waiting.pop(0)
                        if report is not None:
                            asking.append((lease, report))
                    self._ask(peer, asking)
        except RadnodeError as error:  # a rejected association says nothing about the objects, so they wait too
            # Whoever met the error goes behind the others: what makes a destination abort must not block it for ever.
            self._postpone(waiting[1:] + waiting[:1] if sending else waiting, error)
            self._postpone([lease for lease, _ in asking], error)
        return len(leases)

    def _idle_seconds(self) -> float:
        """Return how long there is nothing to do unless somebody rings."""
        due = self._stores.queue.next_due(JobKind.DELIVER, self._destination.name)
        return IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.05, due - time.time()))

    def _deliver(self, peer: StoragePeer, lease: Lease) -> bytes | None:
        """Send a report, or see that it was sent; return it where the destination is to be asked for it."""
        reach("delivery-leased")
        started = time.monotonic()
        is_sent = self._promises is not None and self._promises.is_sent(lease)
        with reading(self._stores.engine) as tx:
            result = get_result(tx, lease.subject)
        try:
            report = self._stores.vault.get(result.report_id)
            if not is_sent:
                peer.store(report)
                reach("report-sent")
        except DestinationHolds:  # sent before, the answer lost: a report's UID derives from what it says
            self._log.info("report_held_already", result=lease.subject, job=lease.job_id, attempt=lease.attempt)
        except (DestinationRefused, NotFoundError, SealBroken, MalformedDataSet) as error:
            self._settle(lease, result, events.DELIVERY_FAILED, error)
            self._log.error(
                "report_refused",
                result=lease.subject,
                study=result.study,
                instance=result.instance,
                job=lease.job_id,
                message=str(error),
            )
            return None
        if self._promises is None:
            self._settle(lease, result, events.REPORT_DELIVERED, None)
        elif not is_sent:
            self._promises.sent(lease, report)
        if not is_sent:
            about = {"result": lease.subject, "study": result.study, "instance": result.instance}
            duration = round((time.monotonic() - started) * 1000, 1)
            self._log.info(
                "report_delivered" if self._promises is None else "report_sent", **about, duration_ms=duration
            )
        return None if self._promises is None else report

    def _ask(self, peer: StoragePeer, objects: list[tuple[Lease, bytes]]) -> None:
        """Ask the destination for what it has taken."""
        if self._promises is not None and objects:
            self._promises.ask(peer, objects)

    def _settle(self, lease: Lease, result: ResultRow, event: Event, error: RadnodeError | None) -> None:
        detail: dict[str, str | int] = {
            "destination": self._destination.name,
            "result": lease.subject,
            "attempt": lease.attempt,
        }
        if error is not None:
            detail["reason"] = str(error)[:MAX_DETAIL_LENGTH]
        record = AuditRecord(
            event,
            self._actor,
            patient=result.patient,
            study=result.study,
            instance=result.instance,
            model=result.model,
            detail=detail,
        )
        try:
            with transaction(self._stores.engine) as tx:
                if error is None:
                    self._stores.queue.finish(tx, lease)
                else:
                    self._stores.queue.bury(tx, lease, str(error))
                self._stores.audit.record(tx, record)
                reach("delivery-uncommitted")
        except StaleLease:
            self._log.warning("lease_lost", result=lease.subject, job=lease.job_id)
        reach("delivery-committed")

    def _postpone(self, leases: list[Lease], error: RadnodeError) -> None:
        """Put off what this attempt did not deliver, in this order: 2^n times the first pause, with jitter."""
        if not leases:
            return
        attempt = min(lease.attempt for lease in leases)
        seconds = pause(self._settings, attempt)
        with transaction(self._stores.engine) as tx:
            for place, lease in enumerate(leases):
                with contextlib.suppress(StaleLease):  # another courier has it
                    self._stores.queue.postpone(tx, lease, seconds + place / 1000, str(error))
        event = "destination_unavailable" if isinstance(error, DeliveryError) else "delivery_stalled"
        self._log.warning(event, count=len(leases), attempt=attempt, error=type(error).__name__, message=str(error))
