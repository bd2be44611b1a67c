"""P-DATA put together to DIMSE messages (PS3.8 Annex E): command sets in memory, data sets into their receptions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from radnode.model import Reception, pour
from radnode.network.command_set import MAX_COMMAND_BYTES, RESPONSE, Command, CommandSet, MalformedCommand, Tag

if TYPE_CHECKING:
    from radnode.network.association import AcceptedAssociation

MALFORMED = "message_malformed", "The peer sent no legal DIMSE message."
COMMAND, LAST = 0x01, 0x02  # message control header, PS3.8 Annex E.2
MAX_EMPTY = 64  # fragments of a message that bring nothing and do not end it; nobody needs one
MAX_OTHER_BYTES = 2**26  # of a data set of anything but a C-STORE, whether it is wanted or not


@dataclass(frozen=True, slots=True)
class Message:
    """One whole request: its command set, and where the `size` bytes of its data set went, if it has one."""

    context_id: int
    command: CommandSet
    reception: Reception | None
    size: int


class Messages(DIMSEServiceProvider):
    """Takes the place of pynetdicom's DIMSE provider on the accepting side.

    Fragments arrive in the thread of the upper layer, which reads no further while a message that was handed over
    to the association's thread is being served (`busy`). `begin` returns the reception for the data set of a request.
    """

    def __init__(self, assoc: AcceptedAssociation, begin: Callable[[int, CommandSet], Reception]) -> None:
        super().__init__(assoc)
        self._association = assoc
        self._begin = begin
        self._serving = threading.Event()
        self._closing = threading.Lock()
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        """Wait for the next message."""
        self._context_id = 0
        self._command_bytes = bytearray()
        self._command: CommandSet | None = None
        self._reception: Reception | None = None
        self._size = self._empty = 0

    @property
    def busy(self) -> bool:
        """Say whether a message waits or is being served."""
        return self._serving.is_set()

    @property
    def begun(self) -> bool:
        """Say whether some of a message came, and not all of it."""
        return bool(self._command_bytes)

    def done(self) -> None:
        """Let the upper layer read on."""
        self._serving.clear()

    def receive_primitive(self, primitive: Any) -> None:
        """Take the fragments of one P-DATA; a breach of PS3.8 Annex E or of the command set aborts."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                message = self._take(context_id, value[0], memoryview(value)[1:])
                if message is not None:
                    self.hand_over(message)
        except MalformedCommand:
            self._association.upper_layer.violation(*MALFORMED)

    def _take(self, context_id: int, control: int, fragment: memoryview) -> Message | None:
        """Add one fragment; return the message if it is complete with it."""
        if control & COMMAND:
            return self.take_command(context_id, control, bytes(fragment))
        pour(fragment, self.data_begins(context_id))
        return self.data_came(len(fragment), control)

    def take_command(self, context_id: int, control: int, fragment: bytes) -> Message | None:
        """Add a fragment of a command set; return the message if this was its end and no data set follows.

        Raises:
            MalformedCommand: it has no place here, or the command set is none.
        """
        self._check_order(context_id)
        if self._command is not None or len(self._command_bytes) + len(fragment) > MAX_COMMAND_BYTES:
            raise MalformedCommand("a second or endless command set")
        self._command_bytes += fragment
        if not control & LAST:
            self._check_progress(len(fragment))
            return None
        command = CommandSet.parse(bytes(self._command_bytes))
        self._check_command(context_id, command)
        self._command = command
        return None if command.has_data_set else self._complete(command)

    def data_begins(self, context_id: int) -> Reception:
        """Return where the next fragment of the data set goes; `data_came` is told when it is there.

        Raises:
            MalformedCommand: there is no command that it belongs to.
        """
        self._check_order(context_id)
        if self._command is None:
            raise MalformedCommand("a data set before its command set")
        if self._reception is None:
            self._reception = self._begin(context_id, self._command)
        return self._reception

    def data_came(self, size: int, control: int) -> Message | None:
        """Count a fragment that is in its reception; return the message if it was the last.

        Raises:
            MalformedCommand: the data set does not end.
        """
        self._size += size
        if control & LAST and self._command is not None:
            return self._complete(self._command)
        self._check_progress(size)
        return None

    def _check_progress(self, size: int) -> None:
        """Hold a message that goes on to bringing something, and one that is no C-STORE to a length.

        Raises:
            MalformedCommand: it would go on for ever.
        """
        self._empty += not size
        if self._empty > MAX_EMPTY:
            raise MalformedCommand("a message of empty fragments")
        if self._size <= MAX_OTHER_BYTES or self._command is None:
            return
        if self._command.ushort(Tag.COMMAND_FIELD) != Command.C_STORE:
            raise MalformedCommand("an endless data set")

    def _check_command(self, context_id: int, command: CommandSet) -> None:
        """Hold a command set to what may come: requests, with the message ID that its response is to name."""
        if command.ushort(Tag.COMMAND_FIELD) & RESPONSE:
            raise MalformedCommand("a response to no request")
        command.ushort(Tag.MESSAGE_ID if command.is_answered else Tag.MESSAGE_ID_BEING_RESPONDED_TO)

    def _check_order(self, context_id: int) -> None:
        """Hold a message to one context, and the peer to one message at a time."""
        if self.busy or (self._command_bytes and context_id != self._context_id):
            raise MalformedCommand("a message was begun within another")
        self._context_id = context_id

    def _complete(self, command: CommandSet) -> Message | None:
        message = Message(self._context_id, command, self._reception, self._size)
        self._reset()
        return message

    def hand_over(self, message: Message) -> None:
        """Let the association's thread serve a message; once it has ended, nothing of the message remains."""
        with self._closing:
            if not self._closed:
                self._serving.set()
                self.msg_queue.put((message.context_id, message))
                return
        if message.reception is not None:
            message.reception.abandon()

    def abandon(self) -> None:
        """Forget the message of which not everything came."""
        if self._reception is not None:
            self._reception.abandon()
        self._reset()

    def close(self) -> None:
        """Forget the message that was handed over and will not be served; called when its thread ends."""
        with self._closing:
            self._closed = True
        while not self.msg_queue.empty():
            _, message = self.msg_queue.get_nowait()
            if message is not None and message.reception is not None:  # pynetdicom itself puts (None, None) there
                message.reception.abandon()

    def respond(self, context_id: int, command_set: bytes) -> None:
        """Send an encoded command set as one P-DATA-TF."""
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[context_id, bytes([COMMAND | LAST]) + command_set]]
        self.dul.send_pdu(primitive)
