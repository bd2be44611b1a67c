"""The fast lane: P-DATA read from the socket straight into the reception of its data set.

While an association is established and has nothing to send, the thread of the upper layer waits here for the peer.
It reads each P-DATA-TF piece by piece (PS3.8 9.3.5): command sets into memory, data sets to where the node wants them,
and it keeps and answers a C-STORE itself. No object is made per PDU, no other thread is woken, nothing polls. Any other
PDU goes to pynetdicom's state machine as it would without the lane, and any other message to the association's thread.
"""

from __future__ import annotations

import struct
from typing import Any

from radnode import baton
from radnode.network import messages, upper_layer, wire
from radnode.network.command_set import Command, MalformedCommand, Tag
from radnode.network.messages import COMMAND, Message
from radnode.network.upper_layer import P_DATA, UpperLayer

_WAIT_SECONDS = 0.1  # how long an abort by this node may wait until an idle association notices
_VALUE = struct.Struct(">LBB")  # item length, presentation context ID, message control header (PS3.8 Table 9-23)
_COUNTED = 2  # bytes of that header that the item length counts


class FastLane(UpperLayer):
    """An upper layer that reads P-DATA itself."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._value_header = memoryview(bytearray(_VALUE.size))

    def _is_transport_event(self) -> bool:
        """Read in the lane until there is an event for the state machine, or nothing to read for a moment."""
        while self._may_wait():
            if not self.socket.may_read(_WAIT_SECONDS):
                return False
            with baton.held:
                self._read_pdus()
        return not self.event_queue.empty() or super()._is_transport_event()

    def _read_pdus(self) -> None:
        """Read the PDU that has come, and those that came behind it."""
        begun: int | None = 0
        while begun is not None:
            self.restart_idle_timer()
            self._read_pdu(begun)
            begun = self.socket.begin(self._header) if self._may_wait() else None

    def _may_wait(self) -> bool:
        """Say whether only the peer can make something happen."""
        return (
            not self._association.messages.busy  # first: who was serving has queued the response before
            and self.state_machine.current_state == "Sta6"
            and not self.event_queue.queue  # `empty()` would take a lock for each PDU
            and not self.to_provider_queue.queue
            and not self._kill_thread
            and not self._broken
        )

    def _read_body(self, pdu_type: int, length: int, deadline: float) -> None:
        """Read P-DATA of an established association here; any other PDU is pynetdicom's."""
        if pdu_type != P_DATA or self.state_machine.current_state != "Sta6":
            super()._read_body(pdu_type, length, deadline)
            return
        try:
            message = self._read_values(length, deadline)
        except ValueError:
            self.violation(*upper_layer.MALFORMED)
        except MalformedCommand:
            self.violation(*messages.MALFORMED)
        else:
            if message is not None:
                self._serve(message)

    def _read_values(self, length: int, deadline: float) -> Message | None:
        """Read the presentation data values of one PDU; return the message that is complete with the last.

        Raises:
            ValueError: an item length lies, a context was not accepted, there is no value, or one after the end.
            MalformedCommand: a breach of PS3.8 Annex E.
            TimeoutError, OSError: as `DeadlineSocket.fill`.
        """
        message, left = None, length
        while left or not length:
            if left < _VALUE.size or message is not None:
                raise ValueError
            self._require(self._value_header, deadline)
            item, context_id, control = _VALUE.unpack(self._value_header)
            size = item - _COUNTED
            left -= _VALUE.size + size
            if size < 0 or left < 0 or context_id not in self._association.accepted_identifiers:
                raise ValueError
            message = self._read_value(context_id, control, size, deadline)
        return message

    def _read_value(self, context_id: int, control: int, size: int, deadline: float) -> Message | None:
        """Read one fragment to where it goes."""
        assembly = self._association.messages
        if control & COMMAND:
            fragment = bytearray(size)
            self._require(memoryview(fragment), deadline)
            return assembly.take_command(context_id, control, bytes(fragment))
        reception, left = assembly.data_begins(context_id), size
        while left:
            room = reception.room()[:left]
            self._require(room, deadline)
            reception.advance(len(room))
            left -= len(room)
        return assembly.data_came(size, control)

    def _require(self, view: memoryview, deadline: float) -> None:
        if not self._fill(view, deadline):
            raise ConnectionResetError

    def _serve(self, message: Message) -> None:
        """Keep and answer a C-STORE here and now; leave every other message to the association's thread."""
        if message.command.ushort(Tag.COMMAND_FIELD) != Command.C_STORE:
            self._association.messages.hand_over(message)
            return
        answer = self._association.answer(message)
        for pdu in wire.p_data(message.context_id, answer, command=True, max_length=0):
            self.socket.send(pdu)
        self.restart_idle_timer()
