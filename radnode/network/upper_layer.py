"""pynetdicom's upper layer (PS3.8 chapter 9), held to deadlines and lengths.

Stock pynetdicom waits for ever for the rest of a PDU, allocates what a PDU claims to be, does not enforce the
announced maximum, and raises in its reactor thread on some malformed requests. Here every PDU is bounded
before it is read and checked before the state machine sees it.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_P_ABORT

from radnode.network import screen
from radnode.network.deadline_socket import LINGER_SECONDS, linger

if TYPE_CHECKING:
    from radnode.network.association import AcceptedAssociation

MAX_REQUEST_BYTES = 2**19  # 128 contexts with every transfer syntax there is take under 256 KB
MAX_CONTROL_BYTES = 4096  # release and abort are 4 bytes long

MALFORMED = "pdu_malformed", "The peer sent a PDU that breaks PS3.8 section 9.3."

_HEADER = struct.Struct(">BxL")
_ASSOCIATE_RQ, P_DATA, _ABORT = 0x01, 0x04, 0x07

# A-ABORT source and reasons of the service provider, PS3.8 Table 9-26
_PROVIDER = 2
_NOT_SPECIFIED, _UNRECOGNIZED_PDU, _UNEXPECTED_PDU, _INVALID_PARAMETER = 0, 1, 2, 6


class UpperLayer(DULServiceProvider):
    """The upper layer of one accepted association; `refuse` of the association is told what it refuses."""

    def __init__(self, assoc: AcceptedAssociation, max_pdu: int, request_seconds: float, idle_seconds: float) -> None:
        super().__init__(assoc)
        self.daemon = True
        self.claimed_titles = (b"", b"")
        self._association = assoc
        self._max_pdu = max_pdu
        self._idle_seconds = idle_seconds
        self._request_deadline = time.monotonic() + request_seconds
        self._header = memoryview(bytearray(_HEADER.size))  # of the PDU that is being read
        self._broken = self._is_reading = False
        self._abort_reason = _UNEXPECTED_PDU

    def run_reactor(self) -> None:
        """Run until the connection ends; no exception leaves the thread, which would print its text."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - boundary of a thread; only the class name may leave it
            self._association.failed(type(error).__name__)
        finally:
            self._close()

    def _close(self) -> None:
        """Leave no socket open, no object half received, no association thread waiting for what cannot come."""
        self._association.messages.abandon()
        self.state_machine.current_state = "Sta1"
        if self.socket is not None and self.socket.socket is not None:
            self.socket.close()
        self.to_user_queue.put(A_P_ABORT())

    def stop_reading(self) -> None:
        """Read no further, not even the rest of a PDU, so that an abort of this node can be sent."""
        self._broken = True
        if self.socket is not None:
            self.socket.stopped = True

    def idle_timer_expired(self) -> bool:
        """Say whether the peer was silent for too long; within a PDU the deadline of the PDU decides."""
        expired = not self._is_reading and bool(super().idle_timer_expired())
        if expired and self._association.messages.begun:
            self._association.refuse("message_timeout", "The peer stopped within a message; check the network.")
        return expired

    def restart_idle_timer(self) -> None:
        """Begin the idle time anew; serving a message is not idleness."""
        self._idle_timer.restart()

    def violation(self, rule: str, advice: str, reason: int = _INVALID_PARAMETER) -> None:
        """Let the state machine abort: A-ABORT 0/0 before the association, 2/`reason` within it (Evt19)."""
        if not self._broken:
            self._broken = True
            self._abort_reason = reason
            self._association.refuse(rule, advice)
        self.event_queue.put("Evt19")

    def _send(self, pdu: Any) -> None:
        """Report an abort that is the provider's, and give that of AA-8 the reason stock pynetdicom leaves out."""
        if isinstance(pdu, A_ABORT_RQ) and (pdu.source == _PROVIDER or self.state_machine.current_state == "Sta2"):
            self._association.refuse("pdu_unexpected", "The peer sent a PDU that PS3.8 Table 9-10 has no place for.")
            if pdu.source == _PROVIDER and pdu.reason_diagnostic == _NOT_SPECIFIED:
                pdu.reason_diagnostic = self._abort_reason
        super()._send(pdu)

    def _process_recv_primitive(self) -> bool:
        """Take what the association's thread wants sent, after what has happened; what crosses an abort is dropped.

        Stock pynetdicom raises for an A-ASSOCIATE or P-DATA primitive in Sta13: PS3.8 Table 9-10 has no place for it.
        """
        if not self.event_queue.empty():
            return True
        if self.state_machine.current_state in {"Sta1", "Sta13"}:
            self.to_provider_queue.queue.clear()
        return bool(super()._process_recv_primitive())

    def _is_transport_event(self) -> bool:
        """Read the next PDU, but not while a message is being served: the sender then waits in TCP.

        Nor the rest of a PDU that broke the protocol before the association: its abort waits behind Evt5.
        """
        if self._broken and self.state_machine.current_state in {"Sta1", "Sta2", "Sta6"}:
            return False
        if self.state_machine.current_state == "Sta6" and self._association.messages.busy:
            return False
        if self.state_machine.current_state == "Sta13" and self._broken and self.socket is not None:
            if self.socket.socket is not None:
                linger(self.socket.socket)
            self.socket.close()
            return True
        return bool(super()._is_transport_event())

    def _read_pdu_data(self) -> None:
        """Read one PDU, whose first byte is there or on its way."""
        self._read_pdu(0)

    def _read_pdu(self, begun: int) -> None:
        """Read one PDU, bounded in length and time, and queue its event; `begun` bytes of its header were read."""
        deadline = self._deadline()
        self._is_reading = True
        try:
            if not self._fill(self._header[begun:], deadline):
                self.event_queue.put("Evt17")
                return
            pdu_type, length = _HEADER.unpack(self._header)
            if not _ASSOCIATE_RQ <= pdu_type <= _ABORT:
                self.violation("pdu_unrecognized", "The peer does not speak DICOM.", _UNRECOGNIZED_PDU)
            elif length > self._limit(pdu_type):
                self.violation("pdu_too_long", "The peer must keep to the maximum length that was announced to it.")
            else:
                self._read_body(pdu_type, length, deadline)
        except InterruptedError:
            return
        except TimeoutError:
            self.violation("pdu_timeout", "The peer stopped within a PDU; check the network.", _NOT_SPECIFIED)
        except OSError:
            self.event_queue.put("Evt17")
        except Exception as error:
            self._association.failed(type(error).__name__)  # pynetdicom's reactor aborts and says nothing
            raise
        finally:
            self._is_reading = False

    def _fill(self, view: memoryview, deadline: float) -> bool:
        """Read as many bytes; False when the peer closed before; errors as `DeadlineSocket.fill`."""
        return bool(self.socket.fill(view, deadline) == len(view))

    def _read_body(self, pdu_type: int, length: int, deadline: float) -> None:
        """Read the rest of a PDU whose type and length may be, and queue its event.

        Raises:
            TimeoutError: the deadline passed.
            OSError: the connection broke.
        """
        encoded = bytearray(_HEADER.size + length)
        encoded[: _HEADER.size] = self._header
        if not self._fill(memoryview(encoded)[_HEADER.size :], deadline):
            self.event_queue.put("Evt17")
            return
        try:
            pdu, event = self._decode_pdu(encoded)
        except Exception:  # noqa: BLE001 - pynetdicom's decoders raise whatever the bytes make them raise
            self.violation(*MALFORMED)
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _deadline(self) -> float:
        """Return when the PDU that begins now must be complete, on time.monotonic()."""
        state = self.state_machine.current_state
        if state in {"Sta1", "Sta2"}:  # the first bytes are read before Evt5 has been acted on
            return self._request_deadline
        return time.monotonic() + (LINGER_SECONDS if state == "Sta13" else self._idle_seconds)

    def _limit(self, pdu_type: int) -> int:
        """Return the longest variable field a PDU of this type may have (PS3.8 Annex D.1.1)."""
        if pdu_type == P_DATA:
            return self._max_pdu
        return MAX_REQUEST_BYTES if pdu_type == _ASSOCIATE_RQ else MAX_CONTROL_BYTES

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        """Decode, and check what the state machine would otherwise stumble over."""
        if bytestream[0] == _ASSOCIATE_RQ:
            self._screen_request(bytestream)
        pdu, event = super()._decode_pdu(bytestream)
        if isinstance(pdu, P_DATA_TF):
            self._check_values(pdu)
        else:
            pdu.to_primitive()
        if isinstance(pdu, A_ASSOCIATE_RQ):
            identifiers = [item.presentation_context_id for item in pdu.presentation_context]
            if len(set(identifiers)) < len(identifiers) or any(identifier % 2 == 0 for identifier in identifiers):
                raise ValueError
        return pdu, event

    def _screen_request(self, request: bytearray) -> None:
        """Set the titles aside as they came, and make pynetdicom able to decode the rest."""
        self.claimed_titles = screen.titles(request)
        if not screen.supports_version_1(request):
            self._association.refuse("protocol_version_unsupported", "The peer must speak protocol version 1.")
        screen.make_decodable(request)

    def _check_values(self, pdu: Any) -> None:
        """Raise ValueError for a PDV without control header, of a context not accepted, or none at all."""
        values = pdu.presentation_data_value_items
        accepted = self._association.accepted_identifiers
        if not values or any(
            not value.presentation_data_value or value.presentation_context_id not in accepted for value in values
        ):
            raise ValueError
