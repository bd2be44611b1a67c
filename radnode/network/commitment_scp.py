"""Storage Commitment on an accepted association (PS3.4 Annex J).

A peer that may asks for a commitment by N-ACTION; it is answered by an N-EVENT-REPORT on the same association where
that stays open, and otherwise on one that the node opens. A destination answers what this node has asked of it by an
N-EVENT-REPORT of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from radnode.commitment_sets import (
    MAX_BYTES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    read_report,
    read_request,
    too_long,
    write_report,
)
from radnode.errors import DestinationUnavailable, MalformedDataSet, PeerMovedOn, RadnodeError, UnknownOperation
from radnode.model import CommitmentReport, PeerIdentity
from radnode.network import statuses
from radnode.network.command_set import Command, CommandSet, Tag

if TYPE_CHECKING:
    from radnode.network.conversation import Conversation
    from radnode.network.hooks import Hooks
    from radnode.network.messages import Message

REQUEST = 1  # Action Type ID, PS3.4 Table J.3-1
SUCCESSFUL, FAILURES_EXIST = 1, 2  # Event Type IDs, PS3.4 Table J.3-2
_ROOM = 65536
_GONE = "The peer released the association on which it had asked, or went on with other things."


class Gathered:
    """The reception of a data set that is read as a whole, in memory."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(_ROOM))
        self._data_set = bytearray()
        self._is_too_long = False

    def room(self) -> memoryview:
        """Return memory for the bytes that come next."""
        return self._room

    def advance(self, count: int) -> None:
        """Keep them, unless they are too many."""
        self._is_too_long = self._is_too_long or len(self._data_set) + count > MAX_BYTES
        if not self._is_too_long:
            self._data_set += self._room[:count]

    def finish(self) -> bytes:
        """Return the data set.

        Raises:
            ObjectTooLarge: it is longer than `MAX_BYTES`.
        """
        if self._is_too_long:
            raise too_long()
        return bytes(self._data_set)

    def abandon(self) -> None:
        """Forget it."""
        self._data_set.clear()


class CommitmentSCP:
    """Answers requests of one admitted peer about storage commitments, and reports to it what became of its own.

    `may_ask` is whether it may ask this node, `may_report` whether it is a destination that this node asks.
    """

    def __init__(self, peer: PeerIdentity, hooks: Hooks, *, may_ask: bool, may_report: bool) -> None:
        self._peer = peer
        self._hooks = hooks
        self._may_ask = may_ask
        self._may_report = may_report
        self._context: tuple[int, str] | None = None  # ID and transfer syntax of the context to report in

    @property
    def owes_report(self) -> bool:
        """Say whether the peer asked on this association, and may be waiting on it for the answer."""
        return self._context is not None

    def status_of(self, message: Message, transfer_syntax: str) -> int:
        """Do what a request asks, and return the status of its response."""
        try:
            status = self._named(message.command)
            if status is None:
                return self._do(message, transfer_syntax)
            return self._decline(UnknownOperation("The peer asked for what is not here, or not for it to ask."), status)
        except RadnodeError as error:
            return self._decline(error, statuses.of_commitment(error))
        except Exception as error:  # noqa: BLE001 - boundary to the node; its text may hold patient data
            self._hooks.failed(type(error).__name__)
            return statuses.PROCESSING_FAILURE

    def report(self, conversation: Conversation) -> None:
        """Let the node report what waits for this peer, on this association; what does not get through stays there."""
        if self._context is None or self._hooks.commitment is None:
            return
        channel = _Channel(conversation, *self._context)
        self._context = None
        try:
            self._hooks.commitment.report(self._peer, channel)
        except Exception as error:  # noqa: BLE001 - boundary to the node; its text may hold patient data
            self._hooks.failed(type(error).__name__)

    def _decline(self, error: RadnodeError, status: int) -> int:
        """Report what was not taken, and return its status."""
        try:
            if self._hooks.commitment is not None:
                self._hooks.commitment.declined(self._peer, error, status)
        except Exception as fault:  # noqa: BLE001 - boundary to the node; only the class name may cross it
            self._hooks.failed(type(fault).__name__)
        return status

    def _named(self, command: CommandSet) -> int | None:
        """Return the status for a request that is about something else, or not this peer's to make."""
        is_action = command.ushort(Tag.COMMAND_FIELD) == Command.N_ACTION
        class_tag, instance_tag, type_tag, types = (
            (Tag.REQUESTED_SOP_CLASS_UID, Tag.REQUESTED_SOP_INSTANCE_UID, Tag.ACTION_TYPE_ID, {REQUEST})
            if is_action
            else (
                *(Tag.AFFECTED_SOP_CLASS_UID, Tag.AFFECTED_SOP_INSTANCE_UID, Tag.EVENT_TYPE_ID),
                {SUCCESSFUL, FAILURES_EXIST},
            )
        )
        if command.uid(class_tag) != STORAGE_COMMITMENT:
            return statuses.NO_SUCH_SOP_CLASS
        if command.uid(instance_tag) != STORAGE_COMMITMENT_INSTANCE:
            return statuses.NO_SUCH_SOP_INSTANCE
        if not (self._may_ask if is_action else self._may_report):
            return statuses.NOT_AUTHORISED
        if not command.has_ushort(type_tag) or command.ushort(type_tag) not in types:
            return statuses.NO_SUCH_ACTION_TYPE if is_action else statuses.NO_SUCH_EVENT_TYPE
        return None

    def _do(self, message: Message, transfer_syntax: str) -> int:
        """Hand what the data set says to the node.

        Raises:
            RadnodeError: it cannot be read, or the node does not take it.
        """
        hooks = self._hooks.commitment
        if not isinstance(message.reception, Gathered) or hooks is None:
            raise MalformedDataSet("There is no data set.")
        data_set = message.reception.finish()
        if message.command.ushort(Tag.COMMAND_FIELD) == Command.N_ACTION:
            hooks.requested(self._peer, read_request(data_set, transfer_syntax))
            self._context = message.context_id, transfer_syntax
        else:
            hooks.reported(self._peer, read_report(data_set, transfer_syntax))
        return statuses.SUCCESS


class _Channel:
    """The way back to a peer over the association on which it asked; `radnode.deliver.commitment` uses it."""

    def __init__(self, conversation: Conversation, context_id: int, transfer_syntax: str) -> None:
        self._conversation = conversation
        self._context_id = context_id
        self._transfer_syntax = transfer_syntax

    def is_open(self) -> bool:
        """Say whether it is worth while to go on."""
        return self._conversation.is_open

    def report(self, report: CommitmentReport) -> None:
        """Send one report.

        Raises:
            PeerMovedOn: the peer released, aborted, or went on with something else.
            DestinationUnavailable: it did not take the report.
        """
        if not self._conversation.await_quiet():
            raise PeerMovedOn(_GONE)
        values = event_report(report)
        encoded = write_report(report, self._transfer_syntax)
        status = self._conversation.ask(self._context_id, Command.N_EVENT_REPORT, values, encoded)
        if status is None:
            raise PeerMovedOn(_GONE)
        if status != statuses.SUCCESS:
            raise DestinationUnavailable(f"The peer answered {status:04X} to N-EVENT-REPORT.")


def event_report(report: CommitmentReport) -> dict[Tag, int | str]:
    """Return what the command set of an N-EVENT-REPORT says of a report (PS3.4 Table J.3-2)."""
    return {
        Tag.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        Tag.AFFECTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_INSTANCE,
        Tag.EVENT_TYPE_ID: FAILURES_EXIST if report.failed else SUCCESSFUL,
    }
