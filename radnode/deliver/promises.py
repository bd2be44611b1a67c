"""What a destination has taken and is still to commit (PS3.4 Annex J, this node as SCU).

A delivery stays a live job until the destination has committed its object. Once the object was taken the job says so
("sent") and waits; every batch is one N-ACTION. No answer in time: it is asked once more, then the object is sent
again. An object that the destination does not commit is sent again, after the pause of a failed delivery. Transactions
are in the database before they are asked for, so that answers match whatever was restarted since.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import MAX_DETAIL_LENGTH, Actor, AuditRecord, Event
from radnode.deliver.cargo import WORDS, subject_of
from radnode.deliver.patience import pause
from radnode.errors import DeliveryError, StaleLease
from radnode.failpoints import reach
from radnode.jobs.database import reading, transaction
from radnode.jobs.sendings import (
    SendingRow,
    add_sending,
    count_ask,
    drop_sending,
    find_sending,
    name_transaction,
    sendings_at,
    sendings_of,
)
from radnode.model import CommitmentReport, CommitmentRequest, JobKind, Lease, Reference
from radnode.part10 import FileMeta
from radnode.settings import DeliverSettings, DestinationSettings
from radnode.stores import Stores

MAX_ASKS = 2  # then it is sent again
LINGER_SECONDS = 1.0  # how long an answer is waited for on the association of a first question
SILENT_LINGERS = 3  # after so many in vain the destination is taken for one that answers on associations of its own
_SENT = "Sent; waits until the destination commits it."


class CommittingPeer(Protocol):
    """An open association with a Storage Commitment SCP."""

    def ask(self, request: CommitmentRequest) -> None:
        """Return once the destination has accepted a request; DeliveryError when it has not."""

    def await_report(
        self, seconds: float, take: Callable[[CommitmentReport], object], is_settled: Callable[[], bool]
    ) -> bool:
        """Say whether the destination reports on this association within so many seconds; `take` comes before 0000.

        Once `is_settled` says that it has reported elsewhere, no report is waited for.
        """


class Promises:
    """The deliveries of one destination that wait for its commitment."""

    def __init__(
        self,
        destination: DestinationSettings,
        stores: Stores,
        *,
        settings: DeliverSettings,
        actor: Actor,
        log: Any,
    ) -> None:
        self._destination = destination
        self._stores = stores
        self._settings = settings
        self._actor = actor
        self._pause = partial(pause, settings)
        self._log = log
        self._in_vain = {False: 0, True: 0}  # by whether it was the second question, which is waited on for longer

    def is_sent(self, lease: Lease) -> bool:
        """Say whether a delivery that is due is to be asked for rather than sent."""
        with reading(self._stores.engine) as tx:
            row = find_sending(tx, lease.kind, lease.subject, self._destination.name)
        return row is not None and row.asks < MAX_ASKS

    def sent(self, lease: Lease, meta: FileMeta) -> None:
        """Say that the destination has taken an object; the job is still held. One commit, with its audit entry."""
        instance = self._stores.pseudonyms.instance(meta.sop_instance_uid)
        with transaction(self._stores.engine) as tx:
            add_sending(tx, lease, instance)
            self._record(tx, lease.kind, lease.subject, WORDS[lease.kind].sending, attempt=lease.attempt)
        reach("object-promised")

    def ask(self, peer: CommittingPeer, objects: Sequence[tuple[Lease, FileMeta]]) -> None:
        """Ask for a batch in one request, give its jobs back, and take an answer that comes at once.

        What a destination does not let itself be asked for stays "sent", is asked for again, and never "delivered".
        """
        leases = [lease for lease, _ in objects]
        references = tuple(Reference(meta.sop_class_uid, meta.sop_instance_uid) for _, meta in objects)
        request = CommitmentRequest(f"2.25.{uuid.uuid4().int}", references)  # PS3.5 section B.2
        name = self._stores.pseudonyms.transaction(self._destination.ae_title, request.TransactionUID)
        with transaction(self._stores.engine) as tx:
            name_transaction(tx, leases, name)
        reach("transaction-named")
        try:
            peer.ask(request)
        except DeliveryError as error:
            # as long as can be: who cannot be asked must not keep others from being sent
            self._give_back(leases, self._settings.retry_max_seconds, str(error))
            self._log.warning("commitment_not_asked", count=len(leases), message=str(error))
            return
        reach("commitment-asked")
        again = self._count(leases)
        reach("asked-given-back")
        self._log.info("commitment_asked", count=len(leases))
        if self._in_vain[again] < SILENT_LINGERS:
            seconds = self._settings.timeout_seconds if again else LINGER_SECONDS
            heard = peer.await_report(seconds, self.reported, lambda: not any(map(self._is_promised, leases)))
            self._in_vain[again] = 0 if heard else self._in_vain[again] + 1

    def reported(self, report: CommitmentReport) -> int:
        """Take what the destination says of a transaction; return how many deliveries that decided.

        All of it is one commit. Instances of which nobody waits to hear are passed over. A transaction that another has
        followed, because its answer took longer than `deliver.commitment_seconds`, still counts for what is committed:
        else a destination that is slow would be sent the same for ever.
        """
        names = self._stores.pseudonyms
        committed = {names.instance(item.SOPInstanceUID) for item in report.committed}
        failed = {names.instance(item.reference.SOPInstanceUID): item.reason for item in report.failed}
        with transaction(self._stores.engine) as tx:
            asked = names.transaction(self._destination.ae_title, report.TransactionUID)
            rows = sendings_of(tx, self._destination.name, asked)
            about = rows or sendings_at(tx, self._destination.name, committed)
            kept = [row for row in about if row.instance in committed and row.instance not in failed]
            lost = [row for row in rows if row.instance in failed]
            for row in kept:
                self._keep(tx, row)
            for row in lost:
                self._lose(tx, row, failed[row.instance])
            reach("answer-uncommitted")
        reach("answer-committed")
        for row in kept:
            self._log.info(WORDS[row.kind].delivered, **_named(row))
        for row in lost:
            self._log.warning("commitment_failed", **_named(row), status=f"{failed[row.instance]:04X}")
        if lost:
            self._stores.wake("deliver")
        return len(kept) + len(lost)

    def _keep(self, tx: Connection, row: SendingRow) -> None:
        drop_sending(tx, row.kind, row.subject, row.destination)
        self._stores.queue.conclude(tx, row.kind, row.subject, row.destination)
        self._record(tx, row.kind, row.subject, WORDS[row.kind].delivery)

    def _lose(self, tx: Connection, row: SendingRow, reason: int) -> None:
        sentence = f"The destination {self._destination.name} did not commit it ({reason:04X}); it is sent again."
        drop_sending(tx, row.kind, row.subject, row.destination)
        self._stores.queue.reopen(tx, row.kind, row.subject, row.destination, self._pause, sentence)
        self._record(tx, row.kind, row.subject, events.DELIVERY_FAILED, reason=sentence)

    def _is_promised(self, lease: Lease) -> bool:
        """Say whether a delivery still waits for the destination's answer."""
        with reading(self._stores.engine) as tx:
            return find_sending(tx, lease.kind, lease.subject, self._destination.name) is not None

    def _count(self, leases: Sequence[Lease]) -> bool:
        """Say that a batch was asked for, and give its jobs back until the answer is overdue; True: not at first."""
        with transaction(self._stores.engine) as tx:
            count_ask(tx, leases, self._stores.clock())
            rows = [find_sending(tx, lease.kind, lease.subject, self._destination.name) for lease in leases]
        reach("ask-counted")
        self._give_back(leases, self._settings.commitment_seconds, _SENT)
        return any(row is not None and row.asks > 1 for row in rows)

    def _give_back(self, leases: Sequence[Lease], delay: float, sentence: str) -> None:
        with transaction(self._stores.engine) as tx:
            for lease in leases:
                with contextlib.suppress(StaleLease):  # the answer was faster, on an association of its own
                    self._stores.queue.postpone(tx, lease, delay, sentence)

    def _record(self, tx: Connection, kind: JobKind, subject: str, event: Event, **detail: str | int) -> None:
        """Audit what became of an object at this destination."""
        about = subject_of(tx, kind, subject)
        where = {"destination": self._destination.name, "recipient": self._destination.recipient[:MAX_DETAIL_LENGTH]}
        record = AuditRecord(
            event,
            self._actor,
            patient=about.patient,
            study=about.study,
            instance=about.instance,
            model=about.model,
            detail={**where, **about.names, **detail},
        )
        self._stores.audit.record(tx, record)


def _named(row: SendingRow) -> dict[str, str]:
    """Return how the log names what was sent."""
    subject, _, name = row.subject.partition(".")
    found = {"instance" if row.kind is JobKind.FORWARD else "result": subject}
    return found | ({"object": name} if name else {})
