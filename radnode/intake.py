"""Intake: from the bytes of a C-STORE to a promise.

identify, seal and write while the bytes arrive (`radnode.reception`) -> durable -> what the rules want for it
(`radnode.rules`) -> ONE commit of instance + jobs + audit entry (`radnode.arrivals`). When `finish` returns, the
instance is kept; when it raises, nothing was promised. Knows nothing of pynetdicom.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from radnode.arrivals import Arrival, Arrivals
from radnode.audit import events
from radnode.audit.events import Action, Actor, AuditOutcome, AuditRecord
from radnode.duplicates import same_instance
from radnode.errors import DuplicateInstance, RadnodeError, StoreUnavailable
from radnode.failpoints import reach
from radnode.identify import Identity
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import InstanceRow, find_instance
from radnode.model import JobKind, NewJob, StoreRequest, pour
from radnode.reception import InstanceReception
from radnode.rules import CALLING_AE, Rules
from radnode.storage.vault import SealedObject
from radnode.stores import Stores


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was kept, in pseudonyms, and the bytes of its data set; `known` when the same were kept before."""

    patient: str
    study: str
    series: str
    instance: str
    size: int
    known: bool


class Intake:
    """Receives instances into one node's stores; the rules say what is done with them."""

    def __init__(self, stores: Stores, max_object_bytes: int, rules: Rules) -> None:
        self._stores = stores
        self._max_object_bytes = max_object_bytes
        self._rules = rules
        self._arrivals = Arrivals(stores)

    def begin(
        self, request: StoreRequest, *, actor: Actor | None = None, enqueue: bool = True
    ) -> InstanceReception[Receipt]:
        """Begin to receive one SOP instance; `finish` of what is returned keeps it, exactly as received.

        Args:
            request: the C-STORE command and who sent it.
            actor: who did it, where it is not the peer.
            enqueue: whether it is to be analysed and forwarded; the Python API analyses by itself.
        """
        return InstanceReception(
            request,
            self._stores.vault,
            self._max_object_bytes,
            self._stores.pseudonyms.study,
            partial(self._keep, actor or Actor.of_peer(request.peer), request, enqueue),
            self._rules.attributes,
        )

    def receive(
        self,
        request: StoreRequest,
        data_set: bytes | memoryview,
        *,
        actor: Actor | None = None,
        enqueue: bool = True,
    ) -> Receipt:
        """Keep one SOP instance whose encoded data set, without preamble and file meta information, is all there.

        Arguments as of `begin`, errors as of `InstanceReception.finish`.
        """
        reception = self.begin(request, actor=actor, enqueue=enqueue)
        pour(memoryview(data_set), reception)
        return reception.finish()

    def _keep(
        self, actor: Actor, request: StoreRequest, enqueue: bool, identity: Identity, sealed: SealedObject, size: int
    ) -> Receipt:
        """Commit an instance whose object is durable; where it is known already, compare the two."""
        receipt = self._pseudonymise(identity, size)
        row = InstanceRow(
            instance=receipt.instance,
            series=receipt.series,
            study=receipt.study,
            patient=receipt.patient,
            object_id=sealed.object_id,
            size=size,
            peer=request.peer.ae_title,
            received=self._stores.clock(),
        )
        record = _record(actor, request, receipt, identity, Action.CREATE)
        jobs = self._jobs(receipt.instance, identity, request.peer.ae_title) if enqueue else ()
        try:
            if self._arrivals.commit(Arrival(row, record, jobs, sealed.key_id)):
                reach("image-committed")
                return receipt
        except Exception:
            self._discard(row)
            raise
        try:
            return self._again(actor, request, receipt, identity, sealed.object_id)
        finally:
            self._stores.vault.discard(sealed.object_id)

    def _jobs(self, instance: str, identity: Identity, calling_ae_title: str) -> tuple[NewJob, ...]:
        """Return what the rules want done with an instance; the worker asks them again for its part.

        Where no rule names a detector for it there is nothing to analyse, and no job that would wait for a worker.
        """
        decision = self._rules.decide({**identity.attributes, CALLING_AE: calling_ae_title})
        analyses = [NewJob(JobKind.ANALYSE, instance, priority=decision.priority)] if decision.detect else []
        return *analyses, *(NewJob(JobKind.FORWARD, instance, name, decision.priority) for name in decision.forward)

    def _discard(self, row: InstanceRow) -> None:
        """Remove the object of a commit that failed, unless the index names it: perhaps only the answer was lost."""
        try:
            with reading(self._stores.engine) as tx:
                found = find_instance(tx, row.instance)
        except RadnodeError:
            self._stores.vault.leave(row.object_id)
            return
        if found is None or found.object_id != row.object_id:
            self._stores.vault.discard(row.object_id)

    def _pseudonymise(self, identity: Identity, size: int) -> Receipt:
        names = self._stores.pseudonyms
        return Receipt(
            patient=names.patient(identity.IssuerOfPatientID, identity.PatientID),
            study=names.study(identity.StudyInstanceUID),
            series=names.series(identity.SeriesInstanceUID),
            instance=names.instance(identity.SOPInstanceUID),
            size=size,
            known=False,
        )

    def _again(
        self, actor: Actor, request: StoreRequest, receipt: Receipt, identity: Identity, object_id: bytes
    ) -> Receipt:
        """Answer an instance that is already kept: the same bytes are fine, other bytes are refused.

        Where what is kept cannot be read, neither is known: StorageError, and nothing changes.
        """
        with reading(self._stores.engine) as tx:
            kept = find_instance(tx, receipt.instance)
        if kept is None:
            raise StoreUnavailable("The kept instance was purged at this moment; send it again.")
        same = kept.size == receipt.size and same_instance(self._stores.vault, kept.object_id, object_id)
        record = _record(actor, request, receipt, identity, Action.READ if same else Action.UPDATE)
        with transaction(self._stores.engine) as tx:
            self._stores.audit.record(tx, record)
        reach("duplicate-compared")
        if not same:
            raise DuplicateInstance("This SOP Instance UID is kept already, with other bytes.")
        return replace(receipt, known=True)


def _record(actor: Actor, request: StoreRequest, receipt: Receipt, identity: Identity, action: Action) -> AuditRecord:
    return AuditRecord(
        events.IMAGE_RECEIVED,
        actor,
        action=action,
        outcome=AuditOutcome.MINOR if action is Action.UPDATE else AuditOutcome.SUCCESS,
        patient=receipt.patient,
        study=receipt.study,
        instance=receipt.instance,
        detail={
            "bytes": receipt.size,
            "sop_class": request.sop_class_uid,
            "transfer_syntax": request.transfer_syntax_uid,
            "status": "0111" if action is Action.UPDATE else "0000",
        },
        identity={
            "PatientID": identity.PatientID,
            "IssuerOfPatientID": identity.IssuerOfPatientID,
            "StudyInstanceUID": identity.StudyInstanceUID,
            "SOPInstanceUID": identity.SOPInstanceUID,
        },
    )
