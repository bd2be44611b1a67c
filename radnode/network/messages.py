"""P-DATA put together to whole DIMSE messages, bounded in size (PS3.8 Annex E)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from radnode.network.command_set import MAX_COMMAND_BYTES, RESPONSE, CommandSet, MalformedCommand, Tag

if TYPE_CHECKING:
    from radnode.network.association import AcceptedAssociation

_COMMAND, _LAST = 0x01, 0x02  # message control header, PS3.8 Annex E.2


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its command set, and its data set exactly as received; `too_large` when that was not kept."""

    context_id: int
    command: CommandSet
    data_set: bytes
    too_large: bool


class Messages(DIMSEServiceProvider):
    """Takes the place of pynetdicom's DIMSE provider on the accepting side.

    `receive_primitive` runs in the thread of the upper layer, which reads no further while `busy`.
    """

    def __init__(self, assoc: AcceptedAssociation, max_object_bytes: int) -> None:
        super().__init__(assoc)
        self._association = assoc
        self._max_object_bytes = max_object_bytes
        self._serving = threading.Event()
        self._reset()

    def _reset(self) -> None:
        """Wait for the next message."""
        self._context_id = 0
        self._command_bytes = bytearray()
        self._command: CommandSet | None = None
        self._fragments: list[bytes] = []
        self._size = 0

    @property
    def busy(self) -> bool:
        """Say whether a message waits or is being served."""
        return self._serving.is_set()

    def done(self) -> None:
        """Let the upper layer read on."""
        self._serving.clear()

    def receive_primitive(self, primitive: Any) -> None:
        """Take the fragments of one P-DATA; a breach of PS3.8 Annex E or of the command set aborts."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._take(context_id, value)
        except MalformedCommand:
            self._reset()
            self._association.upper_layer.violation("message_malformed", "The peer sent no legal DIMSE message.")

    def _take(self, context_id: int, value: bytes) -> None:
        """Add one fragment: message control header, then bytes."""
        control, fragment = value[0], value[1:]
        begun = bool(self._command_bytes)
        if self.busy or (begun and context_id != self._context_id):
            raise MalformedCommand("a message was begun within another")
        self._context_id = context_id
        if control & _COMMAND:
            self._take_command(fragment, last=bool(control & _LAST))
        else:
            self._take_data(fragment, last=bool(control & _LAST))

    def _take_command(self, fragment: bytes, *, last: bool) -> None:
        if self._command is not None or len(self._command_bytes) + len(fragment) > MAX_COMMAND_BYTES:
            raise MalformedCommand("a second or endless command set")
        self._command_bytes += fragment
        if last:
            command = CommandSet.parse(bytes(self._command_bytes))
            if command.ushort(Tag.COMMAND_FIELD) & RESPONSE:
                raise MalformedCommand("a response to no request")
            command.ushort(Tag.MESSAGE_ID if command.is_answered else Tag.MESSAGE_ID_BEING_RESPONDED_TO)
            self._command = command
            if not command.has_data_set:
                self._complete(command)

    def _take_data(self, fragment: bytes, *, last: bool) -> None:
        if self._command is None:
            raise MalformedCommand("a data set before its command set")
        self._size += len(fragment)
        if self._size <= self._max_object_bytes:
            self._fragments.append(fragment)
        else:
            self._fragments.clear()
        if last:
            self._complete(self._command)

    def _complete(self, command: CommandSet) -> None:
        """Hand the message to the association's thread."""
        too_large = self._size > self._max_object_bytes
        message = Message(self._context_id, command, b"".join(self._fragments), too_large)
        self._reset()
        self._serving.set()
        self.msg_queue.put((message.context_id, message))

    def respond(self, context_id: int, command_set: bytes) -> None:
        """Send an encoded command set as one P-DATA-TF."""
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[context_id, bytes([_COMMAND | _LAST]) + command_set]]
        self.dul.send_pdu(primitive)
