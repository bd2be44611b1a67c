"""The Storage SCP of one association: from a C-STORE command to a reception, and from that to a status (PS3.4 B)."""

from __future__ import annotations

from dataclasses import dataclass

from radnode.commitment_sets import STORAGE_COMMITMENT
from radnode.errors import ContextMismatch, InvalidUID, MalformedDataSet, RadnodeError
from radnode.model import PeerIdentity, Reception, StoreRequest
from radnode.network import statuses
from radnode.network.command_set import CommandSet, Tag
from radnode.network.contexts import VERIFICATION
from radnode.network.hooks import Hooks

_DROPPED = memoryview(bytearray(65536))  # written by every thread, read by none


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """What one accepted presentation context stands for, by UID."""

    abstract_syntax: str
    transfer_syntax: str


class Declined:
    """The reception of a data set that is not kept: taken from the wire, dropped, and in the end `error` is raised."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def room(self) -> memoryview:
        """Return memory that nobody reads."""
        return _DROPPED

    def advance(self, count: int) -> None:
        """Drop what was written."""

    def finish(self) -> None:
        """Raise what was wrong."""
        raise self._error

    def abandon(self) -> None:
        """Forget nothing."""


class _Guarded:
    """A reception of the node, replaced by a declined one as soon as it raises where it may not.

    The upper layer would take its OSError for the connection's and its ValueError for a breach by the peer.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self.finish = reception.finish
        self.abandon = reception.abandon

    def room(self) -> memoryview:
        """Return memory for the bytes that come next."""
        try:
            return self._reception.room()
        except Exception as error:  # noqa: BLE001 - boundary to the node; `finish` raises it where it is looked at
            return self._decline(error).room()

    def advance(self, count: int) -> None:
        """Say how much was written."""
        try:
            self._reception.advance(count)
        except Exception as error:  # noqa: BLE001 - as above
            self._decline(error)

    def _decline(self, error: Exception) -> Declined:
        self._reception.abandon()
        self._reception = declined = Declined(error)
        self.finish, self.abandon = declined.finish, declined.abandon
        return declined


class StorageSCP:
    """Answers the C-STORE requests of one admitted peer, and counts them."""

    def __init__(self, peer: PeerIdentity, hooks: Hooks) -> None:
        self.stored = self.failed = self.data_set_bytes = 0
        self._peer = peer
        self._hooks = hooks

    def begin(self, command: CommandSet, context: AcceptedContext) -> Reception:
        """Return where the data set goes; one that cannot be kept is taken and declined in the end."""
        try:
            return _Guarded(self._hooks.receive(self._request(command, context)))
        except Exception as error:  # noqa: BLE001 - `finish` raises it where it is looked at
            return Declined(error)

    def finish(self, command: CommandSet, reception: Reception | None, size: int) -> int:
        """Keep what was received, `size` bytes, and return the C-STORE status (PS3.4 Table B.2-1)."""
        try:
            self._keep(reception, size)
        except RadnodeError as error:
            self.failed += 1
            self._hooks.tell_declined(self._peer, command.uid(Tag.AFFECTED_SOP_INSTANCE_UID), error)
            return error.status
        except Exception as error:  # noqa: BLE001 - boundary to the node; its text may hold patient data
            self.failed += 1
            self._hooks.failed(type(error).__name__)
            return statuses.PROCESSING_FAILURE
        self.stored += 1
        self.data_set_bytes += size
        return statuses.SUCCESS

    def _keep(self, reception: Reception | None, size: int) -> None:
        if reception is not None and size:
            reception.finish()
            return
        if reception is not None:
            reception.abandon()
        raise MalformedDataSet("There is no data set.")

    def _request(self, command: CommandSet, context: AcceptedContext) -> StoreRequest:
        """Return what a C-STORE asks for.

        Raises:
            InputError: it asks for nothing that can be kept.
        """
        sop_class_uid = command.uid(Tag.AFFECTED_SOP_CLASS_UID)
        sop_instance_uid = command.uid(Tag.AFFECTED_SOP_INSTANCE_UID)
        if sop_class_uid != context.abstract_syntax or context.abstract_syntax in {VERIFICATION, STORAGE_COMMITMENT}:
            raise ContextMismatch("The SOP class of the command is not that of its presentation context.")
        if sop_instance_uid is None:
            raise InvalidUID("The command names no SOP Instance UID that is one.")
        return StoreRequest(
            peer=self._peer,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            context_sop_class_uid=context.abstract_syntax,
            transfer_syntax_uid=context.transfer_syntax,
        )
