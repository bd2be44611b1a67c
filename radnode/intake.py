"""Intake: from the bytes of a C-STORE to a promise.

identify -> seal -> put (durable) -> ONE commit of instance + job + audit entry -> wake the worker. When `receive`
returns, the instance is kept; when it raises, nothing was promised. Knows nothing of pynetdicom.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from radnode import __version__
from radnode.audit import events
from radnode.audit.events import Action, Actor, AuditOutcome, AuditRecord
from radnode.errors import ContextMismatch, DuplicateInstance, IdentityMismatch, ObjectTooLarge, RadnodeError
from radnode.identify import Identity, check_uid, identify
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import InstanceRow, add_instance, find_instance
from radnode.model import JobKind, StoreRequest
from radnode.storage.sealing import Kind
from radnode.stores import Stores

PREAMBLE = bytes(128) + b"DICM"  # always zeros: what a peer put there is never kept
IMPLEMENTATION_CLASS_UID = "2.25.273478265014592839418327404729384756102"
IMPLEMENTATION_VERSION_NAME = f"RADNODE_{__version__}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was kept, in pseudonyms; `known` when the same bytes were kept before."""

    patient: str
    study: str
    series: str
    instance: str
    known: bool
    size: int = 0


class Arriving:
    """Interim."""

    def __init__(self, intake: Intake, request: StoreRequest) -> None:
        self._intake, self._request, self._size = intake, request, 0
        self._buffer = bytearray(1 << 20)

    def room(self) -> memoryview:
        """Room."""
        if self._size == len(self._buffer):
            self._buffer = self._buffer + bytes(len(self._buffer))
        return memoryview(self._buffer)[self._size :]

    def advance(self, count: int) -> None:
        """Count."""
        self._size += count

    def finish(self) -> Receipt:
        """Keep."""
        return replace(self._intake.receive(self._request, memoryview(self._buffer)[: self._size]), size=self._size)

    def abandon(self) -> None:
        """Forget."""


class Intake:
    """Receives instances into one node's stores."""

    def __init__(self, stores: Stores, max_object_bytes: int) -> None:
        self._stores = stores
        self._max_object_bytes = max_object_bytes

    def begin(self, request: StoreRequest) -> Arriving:
        """Interim: gathers the bytes."""
        return Arriving(self, request)

    def receive(
        self,
        request: StoreRequest,
        data_set: bytes | memoryview,
        *,
        actor: Actor | None = None,
        enqueue: bool = True,
    ) -> Receipt:
        """Keep one SOP instance, exactly as received, and promise to analyse it.

        Args:
            request: the C-STORE command and who sent it.
            data_set: the encoded data set, without preamble and file meta information.
            actor: who did it, where it is not the peer.
            enqueue: whether the worker is to analyse it; the Python API does that itself.

        Raises:
            InputError: these bytes will never be kept; its `status` says why.
            StorageError: this node cannot keep them now.
            AuditError: the audit entry cannot be written, so the instance was not kept.
        """
        actor = actor or Actor.of_peer(request.peer)
        identity = self._identify(request, data_set)
        receipt = self._pseudonymise(identity)
        content = self._stores.pseudonyms.content(request.transfer_syntax_uid.encode(), b"\0", data_set)
        with reading(self._stores.engine) as tx:
            seen = find_instance(tx, receipt.instance) is not None
        if not seen:
            part10 = PREAMBLE + file_meta(request) + bytes(data_set)
            object_id = self._stores.vault.put(receipt.study, Kind.INSTANCE, part10)
            row = InstanceRow(
                instance=receipt.instance,
                series=receipt.series,
                study=receipt.study,
                patient=receipt.patient,
                object_id=object_id,
                content=content,
                size=len(data_set),
                peer=request.peer.ae_title,
                received=self._stores.clock(),
            )
            try:
                with transaction(self._stores.engine) as tx:
                    # Asked again under the write lock: another association may have been quicker with the same instance
                    seen = find_instance(tx, receipt.instance) is not None
                    if not seen:
                        add_instance(tx, row)
                        if enqueue:
                            self._stores.queue.add(tx, JobKind.ANALYSE, receipt.instance)
                        self._record(tx, actor, request, receipt, identity, Action.CREATE, len(data_set))
            except RadnodeError:
                self._discard(row)
                raise
            if seen:
                self._stores.vault.discard(object_id)
        if seen:
            return self._again(actor, request, receipt, identity, content, len(data_set))
        if enqueue:
            self._stores.wake("worker")
        self._stores.wake("sequencer")
        return receipt

    def _discard(self, row: InstanceRow) -> None:
        """Remove the object of a commit that failed, unless the index names it: perhaps only the answer was lost."""
        with contextlib.suppress(RadnodeError), reading(self._stores.engine) as tx:
            found = find_instance(tx, row.instance)
            if found is None or found.object_id != row.object_id:
                self._stores.vault.discard(row.object_id)

    def _identify(self, request: StoreRequest, data_set: bytes | memoryview) -> Identity:
        if len(data_set) > self._max_object_bytes:
            raise ObjectTooLarge(f"The object has more than {self._max_object_bytes} bytes (node.max_object_bytes).")
        if request.sop_class_uid != request.context_sop_class_uid:
            raise ContextMismatch("The SOP class of the command is not that of its presentation context.")
        check_uid(request.sop_instance_uid)
        identity = identify(data_set, request.transfer_syntax_uid, self._max_object_bytes)
        if (identity.SOPClassUID, identity.SOPInstanceUID) != (request.sop_class_uid, request.sop_instance_uid):
            raise IdentityMismatch("SOP class or instance UID of the data set are not those of the command.")
        return identity

    def _pseudonymise(self, identity: Identity) -> Receipt:
        names = self._stores.pseudonyms
        return Receipt(
            patient=names.patient(identity.IssuerOfPatientID, identity.PatientID),
            study=names.study(identity.StudyInstanceUID),
            series=names.series(identity.SeriesInstanceUID),
            instance=names.instance(identity.SOPInstanceUID),
            known=False,
        )

    def _again(
        self, actor: Actor, request: StoreRequest, receipt: Receipt, identity: Identity, content: str, size: int
    ) -> Receipt:
        """Answer an instance that is already kept: the same bytes are fine, other bytes are refused."""
        with transaction(self._stores.engine) as tx:
            row = find_instance(tx, receipt.instance)
            same = row is not None and row.content == content
            self._record(tx, actor, request, receipt, identity, Action.READ if same else Action.UPDATE, size)
        self._stores.wake("sequencer")
        if not same:
            raise DuplicateInstance("This SOP Instance UID is kept already, with other bytes.")
        return Receipt(receipt.patient, receipt.study, receipt.series, receipt.instance, known=True)

    def _record(
        self,
        tx: Connection,
        actor: Actor,
        request: StoreRequest,
        receipt: Receipt,
        identity: Identity,
        action: Action,
        size: int,
    ) -> None:
        record = AuditRecord(
            events.IMAGE_RECEIVED,
            actor,
            action=action,
            outcome=AuditOutcome.MINOR if action is Action.UPDATE else AuditOutcome.SUCCESS,
            patient=receipt.patient,
            study=receipt.study,
            instance=receipt.instance,
            detail={
                "bytes": size,
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
        self._stores.audit.record(tx, record)


def file_meta(request: StoreRequest) -> bytes:
    """Return the file meta information (PS3.10 section 7.1) for a received data set.

    Written here and not by pydicom, which complains about the UIDs that devices in the field really send.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),  # File Meta Information Version
            _element(0x0002, b"UI", request.sop_class_uid.encode("ascii")),
            _element(0x0003, b"UI", request.sop_instance_uid.encode("ascii")),
            _element(0x0010, b"UI", request.transfer_syntax_uid.encode("ascii")),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
            _element(0x0016, b"AE", request.peer.ae_title.encode("ascii")),  # Source Application Entity Title
        )
    )
    return _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element of group 0002 (explicit VR little endian), padded to an even length."""
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    length = struct.pack("<2xI" if vr == b"OB" else "<H", len(value))
    return struct.pack("<HH2s", 0x0002, number, vr) + length + value
