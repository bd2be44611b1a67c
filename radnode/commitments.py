"""Storage commitments that peers ask of this node (PS3.4 Annex J): kept before they are promised an answer, and judged.

A request names UIDs, so it is sealed like everything else about patients, and the database knows pseudonyms only. What
is committed was opened: the index names the instance, every chunk of its object was read and authenticated, and it is
of the SOP class that the request says.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import Actor, AuditOutcome, AuditRecord
from radnode.commitment_sets import EXPLICIT, STORAGE_COMMITMENT_INSTANCE, read_request, write_request
from radnode.errors import DuplicateTransaction, NotFoundError, PeerMovedOn, RadnodeError, SealBroken
from radnode.failpoints import reach
from radnode.jobs.commitments import CommitmentRow, add_commitment, close_commitment, get_commitment
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import InstanceRow, find_instance
from radnode.model import (
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    JobKind,
    Lease,
    PeerIdentity,
    Reference,
)
from radnode.part10 import read_file_meta
from radnode.storage.sealing import Kind
from radnode.stores import Stores

# Failure Reason, PS3.3 section C.14.1.1
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a report says, and of whom: how many instances of each patient (a pseudonym) are committed, and not.

    Instances that the index does not name have no patient: None.
    """

    report: CommitmentReport
    committed: Counter[str | None]
    failed: Counter[str | None]


class Commitments:
    """The requests of one node's peers."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._folder = stores.pseudonyms.study(STORAGE_COMMITMENT_INSTANCE)  # requests share a key; no study has it

    def accept(self, peer: PeerIdentity, request: CommitmentRequest) -> None:
        """Keep a request: it is durable, with the job of answering it, when this returns (status 0000).

        The same request again, while it waits for its answer, changes nothing.

        Raises:
            DuplicateTransaction: its Transaction UID stands for another request, or for one that was answered.
            StorageError: this node cannot keep it now.
            AuditError: the audit entry cannot be written, so it was not kept.
        """
        encoded = write_request(request, EXPLICIT)
        row = CommitmentRow(
            commitment=self._stores.pseudonyms.transaction(peer.ae_title, request.TransactionUID),
            peer=peer.ae_title,
            content=self._stores.pseudonyms.content(encoded),
            object_id=self._stores.vault.put(self._folder, Kind.COMMITMENT, encoded),
            received=self._stores.clock(),
        )
        reach("request-sealed")
        kept = False
        try:
            with transaction(self._stores.engine) as tx:
                is_new = add_commitment(tx, row)
                if is_new:
                    self._stores.queue.add(tx, JobKind.COMMIT, row.commitment, peer.ae_title)
                else:
                    _check_same(get_commitment(tx, row.commitment), row)
                detail: dict[str, str | int] = {"commitment": row.commitment, "count": len(request.references)}
                record = AuditRecord(events.COMMITMENT_REQUESTED, Actor.of_peer(peer), detail=detail)
                self._stores.audit.record(tx, record)
            reach("request-kept")
            kept = is_new
        finally:
            if not kept:
                self._discard(row)

    def load(self, commitment: str) -> CommitmentRequest:
        """Return a request that waits for its answer.

        Raises:
            NotFoundError: there is none, or it was answered.
            StorageError: it cannot be read.
        """
        with reading(self._stores.engine) as tx:
            row = get_commitment(tx, commitment)
        if row.object_id is None:
            raise NotFoundError(f"The storage commitment {commitment} was answered already.")
        return read_request(self._stores.vault.get(row.object_id), EXPLICIT)

    def judge(self, request: CommitmentRequest, go_on: Callable[[], bool] = lambda: True) -> Judgement:
        """Look at every instance that a request names, each once, for as long as `go_on` says.

        Raises:
            StorageError: this node cannot tell now; that is never a failure of an instance.
            PeerMovedOn: `go_on` said no.
        """
        with reading(self._stores.engine) as tx:
            names = {reference.SOPInstanceUID for reference in request.references}
            rows = {name: find_instance(tx, self._stores.pseudonyms.instance(name)) for name in names}
        classes: dict[str, str | None] = {}
        committed: list[Reference] = []
        failed: list[FailedReference] = []
        counts: tuple[Counter[str | None], Counter[str | None]] = Counter(), Counter()
        for reference in request.references:
            name, row = reference.SOPInstanceUID, rows[reference.SOPInstanceUID]
            if name not in classes and row is not None:
                classes[name] = self._sop_class(row, go_on)
            reason = _reason(reference, row, classes.get(name))
            if reason is None:
                committed.append(reference)
            else:
                failed.append(FailedReference(reference, reason))
            counts[reason is not None][None if row is None else row.patient] += 1
        return Judgement(CommitmentReport(request.TransactionUID, tuple(committed), tuple(failed)), *counts)

    def settle(self, lease: Lease, judgement: Judgement, actor: Actor, peer: str) -> None:
        """Say that the peer has taken the answer: in one commit the job ends, with an audit entry a patient.

        Raises:
            StaleLease: the job is another's now; nothing was written.
        """
        with transaction(self._stores.engine) as tx:
            row = get_commitment(tx, lease.subject)
            close_commitment(tx, lease.subject)
            self._stores.queue.finish(tx, lease)
            for patient in judgement.committed | judgement.failed:
                failed = judgement.failed[patient]
                detail: dict[str, str | int] = {"commitment": lease.subject, "recipient": peer}
                detail |= {"count": judgement.committed[patient], "failed": failed}
                outcome = AuditOutcome.MINOR if failed else AuditOutcome.SUCCESS
                record = AuditRecord(events.COMMITMENT_REPORTED, actor, outcome=outcome, patient=patient, detail=detail)
                self._stores.audit.record(tx, record)
        reach("request-closed")
        if row.object_id is not None:
            self._stores.vault.discard(row.object_id)

    def drop(self, tx: Connection, commitment: str) -> bytes | None:
        """Say, in the caller's transaction, that a request is never answered; return its sealed object, to discard.

        Raises:
            NotFoundError: there is none.
        """
        row = get_commitment(tx, commitment)
        close_commitment(tx, commitment)
        return row.object_id

    def _sop_class(self, row: InstanceRow, go_on: Callable[[], bool]) -> str | None:
        """Return the SOP class of a kept instance, whose every byte was read and authenticated; None: it is broken."""
        start: bytes | None = None
        try:
            for chunk in self._stores.vault.open(row.object_id):
                if not go_on():
                    raise PeerMovedOn("The peer did not wait for its storage commitment to be looked at.")
                start = chunk if start is None else start
        except (NotFoundError, SealBroken):
            return None
        return None if start is None else read_file_meta(start).sop_class_uid

    def _discard(self, row: CommitmentRow) -> None:
        """Remove the object of a request that was not kept, unless the index names it: the commit may have happened."""
        with contextlib.suppress(RadnodeError), reading(self._stores.engine) as tx:
            try:
                named = get_commitment(tx, row.commitment).object_id
            except NotFoundError:
                named = None
            if named != row.object_id and row.object_id is not None:
                self._stores.vault.discard(row.object_id)


def _check_same(kept: CommitmentRow, row: CommitmentRow) -> None:
    if kept.object_id is None or kept.content != row.content:
        raise DuplicateTransaction("This Transaction UID is in use already; each storage commitment needs its own.")


def _reason(reference: Reference, row: InstanceRow | None, sop_class: str | None) -> int | None:
    """Return the Failure Reason of one reference; None: it is committed."""
    if row is None:
        return NO_SUCH_OBJECT_INSTANCE
    if sop_class is None:
        return PROCESSING_FAILURE
    return None if sop_class == reference.SOPClassUID else CLASS_INSTANCE_CONFLICT
