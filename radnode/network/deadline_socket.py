"""Sockets of established connections: every wait ends, and none keeps others from computing.

Sockets here do not block: what cannot go on waits for the kernel's word, with a deadline and without the baton.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import AssociationSocket

from radnode import baton

if TYPE_CHECKING:
    from radnode.network.association import AcceptedAssociation

LINGER_SECONDS = 1.0  # how long a peer that broke the protocol may keep sending before the socket is closed

_LOOK_UP_SECONDS = 0.25  # how long an abort by this node may wait within a PDU
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class DeadlineSocket(AssociationSocket):
    """A connected socket whose every wait ends."""

    def __init__(self, assoc: AcceptedAssociation, connection: socket.socket, send_seconds: float) -> None:
        super().__init__(assoc, client_socket=connection)
        connection.setblocking(False)
        self._send_seconds = send_seconds
        self._receive: Callable[[memoryview], int] = connection.recv_into
        if isinstance(connection, ssl.SSLSocket):
            read: Callable[[int, memoryview], Any] = connection.read
            self._receive = functools.partial(read, 1 << 30)  # what recv_into comes to, a call sooner
        self.stopped = False  # set by any thread: read no further

    @property
    def ready(self) -> bool:
        """Say whether data can be read."""
        return self._is_connected and self.may_read(0.0)

    def may_read(self, seconds: float) -> bool:
        """Wait at most so long; say whether there is something to read now, which may be the end."""
        connection = self.socket
        if connection is None:
            return False
        try:
            return bool(getattr(connection, "pending", int)()) or _wait(connection, select.POLLIN, seconds)
        except OSError:  # closed meanwhile
            self.event_queue.put("Evt17")
            return False

    def begin(self, view: memoryview) -> int | None:
        """Read into `view` what is there now, and say how much; None when nothing is, 0 when nothing will come."""
        try:
            return self._receive(view)
        except _BLOCKED:
            return None
        except (OSError, ValueError):  # the connection broke, or this node has closed it: `fill` says so, too
            return 0

    def fill(self, view: memoryview, deadline: float) -> int:
        """Fill `view` and return its length, or how much came before the peer closed; `deadline`: time.monotonic().

        Raises:
            InterruptedError: reading was stopped.
            TimeoutError: the deadline passed.
            OSError: the connection broke.
        """
        receive, left = self._receive, view
        while left:
            if self.stopped:
                raise InterruptedError
            try:
                received = receive(left)
            except _BLOCKED as blocked:
                self._wait_for(blocked, select.POLLIN, deadline)
            except ValueError:  # what a TLS socket says once this node has closed it
                raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
            else:
                if not received:
                    break
                left = left[received:]
        return len(view) - len(left)

    def send(self, bytestream: bytes) -> None:
        """Send everything within `send_seconds`; otherwise the connection counts as closed (Evt17)."""
        connection = self.socket
        if connection is None:
            return
        deadline, left = time.monotonic() + self._send_seconds, memoryview(bytestream)
        try:
            while left:
                try:
                    left = left[connection.send(left) :]
                except _BLOCKED as blocked:
                    self._wait_for(blocked, select.POLLOUT, deadline)
        except OSError:
            self.event_queue.put("Evt17")

    def _wait_for(self, blocked: OSError, event: int, deadline: float) -> None:
        """Wait a moment for what blocked an operation: `event`, unless TLS needs the other direction first."""
        left = min(deadline - time.monotonic(), _LOOK_UP_SECONDS)
        if left <= 0:
            raise TimeoutError
        if isinstance(blocked, ssl.SSLError):
            event = select.POLLIN if isinstance(blocked, ssl.SSLWantReadError) else select.POLLOUT
        _wait(self.socket, event, left)

    def _shutdown_socket(self) -> None:
        """Close also when the peer was first; stock pynetdicom then leaves the descriptor to the garbage collector."""
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _wait(connection: socket.socket | None, events: int, seconds: float) -> bool:
    """Wait at most so long; poll() because select() fails from descriptor 1024 on."""
    poll = select.poll()
    try:
        poll.register(connection, events)  # type: ignore[arg-type]  # None is what a closed socket has become
    except (TypeError, ValueError):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
    if not seconds:
        return bool(poll.poll(0))
    if connection is not None and events == select.POLLIN:
        acknowledge_at_once(connection)
    with baton.waiting:
        return bool(poll.poll(seconds * 1000))


def acknowledge_at_once(connection: socket.socket) -> None:
    """Acknowledge what came and what comes next without delay: senders with Nagle on would wait 40 ms for it."""
    if _QUICKACK is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def linger(connection: socket.socket) -> None:
    """Let the peer read what was sent to it: closing with unread data would reset the connection."""
    deadline = time.monotonic() + LINGER_SECONDS
    with contextlib.suppress(OSError):  # gone already, which is what closing was for
        connection.settimeout(LINGER_SECONDS)
        connection.shutdown(socket.SHUT_WR)  # ends TLS too: what is read below is thrown away as it came
        while time.monotonic() < deadline and connection.recv(65536):
            pass
