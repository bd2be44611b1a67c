"""PDUs as the requesting side sends and reads them: one socket, one thread, a deadline on every wait (PS3.8 9.3)."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from radnode.network.admission import APPLICATION_CONTEXT_NAME
from radnode.network.deadline_socket import acknowledge_at_once
from radnode.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, ABORT = 0x02, 0x03, 0x04, 0x06, 0x07
RELEASE_RQ_PDU = bytes.fromhex("05000000000400000000")
ABORT_PDU = bytes.fromhex("07000000000400000000")  # source 0: service user
MAX_LENGTH = 65536  # announced to the peer, whose responses are far shorter; and what is sent at most in one PDU
MIN_LENGTH = 64  # PS3.8 names none; below this a PDU is nearly all header

_HEADER = struct.Struct(">BxL")
_VALUE_HEADER = struct.Struct(">LBB")  # item length, presentation context ID, message control header
_COMMAND, _LAST = 0x01, 0x02


class ProtocolError(Exception):
    """The peer sent something that PS3.8 does not allow here."""


class Wire:
    """A connection to an SCP."""

    def __init__(self, connection: socket.socket, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout = timeout_seconds

    @classmethod
    def connect(cls, host: str, port: int, context: ssl.SSLContext | None, timeout_seconds: float) -> Wire:
        """Connect, and shake hands where a context is given.

        Raises:
            OSError: no connection, no handshake, or no end of either within `timeout_seconds`.
        """
        try:
            connection = socket.create_connection((host, port), timeout_seconds)
        except UnicodeError as error:
            raise OSError("the host has a name that is none") from error
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise
        return cls(connection, timeout_seconds)

    @property
    def certificate(self) -> dict[str, object]:
        """The verified certificate of the peer as `SSLSocket.getpeercert()` gives it; empty without TLS."""
        return dict(self._connection.getpeercert() or {}) if isinstance(self._connection, ssl.SSLSocket) else {}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, encoded: bytes) -> None:
        """Send an encoded PDU.

        Raises:
            OSError: the connection broke, or the peer did not take it in time.
        """
        self._connection.settimeout(self._timeout)
        self._connection.sendall(encoded)

    def deadline(self) -> float:
        """Return when (time.monotonic()) an answer that is waited for from now on must be whole."""
        return time.monotonic() + self._timeout

    def has_more(self, seconds: float) -> bool:
        """Say whether something comes, or the connection ends, within so many seconds.

        Raises:
            OSError: the connection broke.
        """
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        poll = select.poll()  # any number of descriptors
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def receive(self, deadline: float) -> tuple[int, bytes]:
        """Return type and variable field of the next PDU, which is to be whole at `deadline` (time.monotonic()).

        Raises:
            OSError: the connection broke or ended, or the PDU did not come in time.
            ProtocolError: the PDU claims to be longer than was announced.
        """
        pdu_type, length = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if length > MAX_LENGTH:
            raise ProtocolError("a PDU longer than announced")
        return pdu_type, self._read(length, deadline)

    def _read(self, count: int, deadline: float) -> bytes:
        buffer = bytearray()
        while len(buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            acknowledge_at_once(self._connection)  # a peer with Nagle on (dcmtk, Orthanc) holds back half its answer
            received = self._connection.recv(count - len(buffer))
            if not received:
                raise ConnectionResetError
            buffer += received
        return bytes(buffer)


def associate_rq(
    calling_ae_title: str, called_ae_title: str, contexts: list[PresentationContext], scp_of: str | None = None
) -> bytes:
    """Return an encoded A-ASSOCIATE-RQ; `scp_of` is the SOP class of which the requestor is to be the SCP, if any."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT_NAME
    primitive.calling_ae_title = calling_ae_title
    primitive.called_ae_title = called_ae_title
    primitive.presentation_context_definition_list = contexts
    maximum, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    maximum.maximum_length_received = MAX_LENGTH
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive.user_information = [maximum, implementation, version]
    if scp_of is not None:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = scp_of, False, True  # PS3.7 Table D.3-9
        primitive.user_information.append(role)
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def read_associate_ac(body: bytes) -> tuple[dict[int, str], int]:
    """Return the transfer syntax of each accepted context ID, and the longest PDU the peer takes (0: any).

    Raises:
        ProtocolError: the variable field is not that of an A-ASSOCIATE-AC.
    """
    pdu = A_ASSOCIATE_AC()
    try:
        pdu.decode(_HEADER.pack(ASSOCIATE_AC, len(body)) + body)
        primitive = pdu.to_primitive()
        results = primitive.presentation_context_definition_results_list
        accepted = {int(item.context_id): str(item.transfer_syntax[0]) for item in results if item.result == 0}
        max_length = int(primitive.maximum_length_received or 0)
    except Exception as error:
        raise ProtocolError("a malformed A-ASSOCIATE-AC") from error
    if not results:  # one that accepts nothing still has a result for each context
        raise ProtocolError("an A-ASSOCIATE-AC without presentation contexts")
    if 0 < max_length < MIN_LENGTH:
        raise ProtocolError("an A-ASSOCIATE-AC that leaves no room for messages")
    return accepted, max_length


def p_data(
    context_id: int, content: bytes | memoryview, *, command: bool, max_length: int, ends: bool = True
) -> Iterator[bytes]:
    """Yield `content` as encoded P-DATA-TF PDUs whose variable field is at most `max_length` bytes.

    Unless it `ends` there, more of the same command or data set follows.
    """
    room = (min(max_length or MAX_LENGTH, MAX_LENGTH) - _VALUE_HEADER.size) & ~1
    view = memoryview(content)
    for start in range(0, max(len(view), 1), room):
        fragment = view[start : start + room]
        control = (_COMMAND if command else 0) | (_LAST if ends and start + room >= len(view) else 0)
        value = _VALUE_HEADER.pack(len(fragment) + 2, context_id, control)
        yield b"".join((_HEADER.pack(P_DATA, len(value) + len(fragment)), value, fragment))


def data_set(context_id: int, pieces: Iterable[bytes | memoryview], *, max_length: int) -> Iterator[bytes]:
    """Yield a data set that comes in pieces of even length, only the last of them known as such once it is there."""
    following = iter(pieces)
    piece = next(following, b"")
    for after in following:
        yield from p_data(context_id, piece, command=False, max_length=max_length, ends=False)
        piece = after
    yield from p_data(context_id, piece, command=False, max_length=max_length)


def read_p_data(body: bytes) -> Iterator[tuple[bool, bytes]]:
    """Yield (is the last, bytes) of each command fragment of a P-DATA-TF.

    Raises:
        ProtocolError: as `read_values`, or a data set, which no response that is awaited here has.
    """
    for is_command, is_last, fragment in read_values(body):
        if not is_command:
            raise ProtocolError("a presentation data value that is no command fragment")
        yield is_last, fragment


def read_values(body: bytes) -> Iterator[tuple[bool, bool, bytes]]:
    """Yield (is of a command set, is the last, bytes) of each fragment of a P-DATA-TF.

    Raises:
        ProtocolError: a length past the end, or no fragment at all.
    """
    if not body:
        raise ProtocolError("a P-DATA-TF without a presentation data value")
    offset = 0
    while offset < len(body):
        if len(body) - offset < _VALUE_HEADER.size:
            raise ProtocolError("a P-DATA-TF that ends within a header")
        length, _, control = _VALUE_HEADER.unpack_from(body, offset)
        if length < 2 or length > len(body) - offset - 4:
            raise ProtocolError("a presentation data value with a length that cannot be")
        yield bool(control & _COMMAND), bool(control & _LAST), body[offset + _VALUE_HEADER.size : offset + 4 + length]
        offset += 4 + length
