"""An accepted association on which this node asks too, one request at a time, beside those of the peer (PS3.7 7.5)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pynetdicom.pdu_primitives import P_DATA

from radnode.network.command_set import RESPONSE, WITH_DATA_SET, Command, CommandSet, MalformedCommand, Tag, encode
from radnode.network.messages import COMMAND, LAST, Message, Messages
from radnode.network.wire import MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from radnode.model import Reception
    from radnode.network.association import AcceptedAssociation

QUIET_SECONDS = 0.5  # how long the peer has said nothing before it is asked: it may be about to release
MAX_QUIET_SECONDS = 10.0  # how long such a moment is waited for
_LOOK_SECONDS = 0.02
_VALUE_HEADER = 6  # bytes before each fragment in a P-DATA-TF (PS3.8 Table 9-23)


class Conversation(Messages):
    """Messages of both directions. `ask` is called in the association's thread, responses come in the upper layer's."""

    def __init__(self, assoc: AcceptedAssociation, begin: Callable[[int, CommandSet], Reception]) -> None:
        super().__init__(assoc, begin)
        self._message_id = 0
        self._awaited: tuple[int, int] | None = None  # command field and message ID of the response
        self._answered = threading.Event()
        self._status = 0

    @property
    def is_open(self) -> bool:
        """Say whether the peer still waits for what this node may say: no release, no abort, no other request."""
        association = self._association
        lives = association.is_established and association.dul.is_alive()
        return bool(lives) and association.dul.to_user_queue.empty() and not self.busy

    def await_quiet(self) -> bool:
        """Return True once the peer has been quiet for `QUIET_SECONDS`; False when it went on or went away."""
        deadline = time.monotonic() + MAX_QUIET_SECONDS
        quiet_from = time.monotonic()
        while self.is_open and time.monotonic() < deadline:
            if time.monotonic() - quiet_from >= QUIET_SECONDS:
                return True
            time.sleep(_LOOK_SECONDS)
            if self.begun:
                quiet_from = time.monotonic()
        return False

    def ask(self, context_id: int, command: Command, values: dict[Tag, int | str], data_set: bytes) -> int | None:
        """Send a request with a data set and return the status of its response; None when none came."""
        self._message_id = self._message_id % 65535 + 1
        self._answered.clear()
        self._awaited = (command | RESPONSE, self._message_id)
        values |= {
            Tag.COMMAND_FIELD: int(command),
            Tag.MESSAGE_ID: self._message_id,
            Tag.COMMAND_DATA_SET_TYPE: WITH_DATA_SET,
        }
        self._send(context_id, encode(values), COMMAND)
        self._send(context_id, data_set, 0)
        deadline = time.monotonic() + float(self._association.dimse_timeout)
        while not self._answered.wait(_LOOK_SECONDS):
            if time.monotonic() > deadline or not self.is_open:
                return self._status if self._answered.is_set() else None
        return self._status

    def _send(self, context_id: int, content: bytes, control: int) -> None:
        """Send a command set or data set as P-DATA-TF no longer than the peer takes."""
        longest = int(self._association.requestor.maximum_length or MAX_LENGTH)
        room = max(2, (min(longest, MAX_LENGTH) - _VALUE_HEADER) & ~1)
        for start in range(0, len(content), room):
            last = LAST if start + room >= len(content) else 0
            primitive = P_DATA()
            primitive.presentation_data_value_list = [
                [context_id, bytes([control | last]) + content[start : start + room]]
            ]
            self.dul.send_pdu(primitive)

    def _check_command(self, context_id: int, command: CommandSet) -> None:
        """Let the one response pass that is waited for; everything else as in a listener that asks nothing."""
        field = command.ushort(Tag.COMMAND_FIELD)
        if self._awaited is None or not field & RESPONSE:
            super()._check_command(context_id, command)
        elif (field, command.ushort(Tag.MESSAGE_ID_BEING_RESPONDED_TO)) != self._awaited:
            raise MalformedCommand("a response to another request")
        else:
            command.ushort(Tag.STATUS)

    def _complete(self, command: CommandSet) -> Message | None:
        """Keep the status of a response to itself; a request is handed on. What a response may carry is not read."""
        message = super()._complete(command)
        if not command.ushort(Tag.COMMAND_FIELD) & RESPONSE:
            return message
        self._awaited = None
        self._status = command.ushort(Tag.STATUS)
        self._answered.set()
        return None
