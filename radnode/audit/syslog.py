"""Syslog over TLS: the header of RFC 5424, the framing of RFC 5425, and knowing that a message has arrived.

Syslog has no answer. But who closes a TCP connection in order has read all that came before: a receiver that stops
reading, dies, or is away resets it or leaves it open. So a batch goes on a connection of its own, which is closed from
this side, and counts as taken once the other side has closed it too, every byte acknowledged.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Iterable

from radnode.errors import AuditError

FACILITY = 10  # security and authorisation messages, RFC 5424 table 1
SEVERITY = {"success": 5, "minor": 4, "serious": 3}  # notice, warning, error; RFC 5424 table 2
_BOM = b"\xef\xbb\xbf"
_MAX_SEQUENCE = 2**31 - 1  # RFC 5424 section 7.3.1


def frame(message: bytes, *, seq: int, timestamp: str, outcome: str, host: str) -> bytes:
    """Return one framed syslog message around an audit message.

    `seq` is the number of the entry; it goes as `sequenceId`, by which a receiver knows a message that came twice.
    """
    priority = FACILITY * 8 + SEVERITY[outcome]
    sequence = (seq - 1) % _MAX_SEQUENCE + 1
    header = f'<{priority}>1 {timestamp} {_name(host)} radnode - DICOM+RFC3881 [meta sequenceId="{sequence}"] '
    text = header.encode() + _BOM + message
    return b"%d %b" % (len(text), text)  # RFC 5425 section 4.3


def checkpoint_frame(note: bytes, *, size: int, timestamp: str, host: str) -> bytes:
    """Return one framed syslog message with a signed checkpoint, as `checkpoint <size> <base64 of the note>`."""
    header = f"<{FACILITY * 8 + SEVERITY['success']}>1 {timestamp} {_name(host)} radnode - CHECKPOINT - "
    text = header.encode() + b"checkpoint %d %b" % (size, base64.b64encode(note))
    return b"%d %b" % (len(text), text)


def _name(host: str) -> str:
    """Return a host name as the header may have it (RFC 5424 section 6)."""
    return "".join(letter if "!" <= letter <= "~" else "_" for letter in host)[:255] or "-"


def deliver(connection: ssl.SSLSocket, frames: Iterable[bytes], seconds: float) -> None:
    """Send frames over a connection that is used for nothing else, and return once the receiver has read them all.

    Raises:
        AuditError: it may not have; nothing says which of them it has.
    """
    deadline = time.monotonic() + seconds
    try:
        connection.settimeout(seconds)
        connection.sendall(b"".join(frames))
        connection.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.unwrap()  # says close_notify, and waits for nothing
        raw = socket.socket(fileno=connection.detach())
    except OSError as error:
        connection.close()
        raise AuditError(f"The audit repository took no more ({type(error).__name__}).") from None
    with raw:
        try:
            raw.shutdown(socket.SHUT_WR)
            while True:
                raw.settimeout(max(0.001, deadline - time.monotonic()))
                if not raw.recv(4096):
                    break
            while _unacknowledged(raw):
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(0.01)
        except OSError as error:
            raise AuditError(f"The audit repository did not close in order ({type(error).__name__}).") from None


def _unacknowledged(connection: socket.socket) -> int:
    """Return how many bytes the other machine has not acknowledged (tcp(7), SIOCOUTQ)."""
    found: int = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
    return found
