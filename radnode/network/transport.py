"""Sockets of the listener: accept at once; handshake and first byte in the connection's own thread, with deadlines."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from radnode.model import Refusal
from radnode.network import contexts
from radnode.network.admission import Admission, Certificate
from radnode.network.association import AcceptedAssociation, Hooks
from radnode.network.tls import handshake_refusal
from radnode.network.upper_layer import DeadlineSocket

if TYPE_CHECKING:
    from pynetdicom import AE

    from radnode.settings import NodeSettings

MAX_WAITING = 1024  # connections without an association; the oldest makes room
_CLOSED = "tls_closed_by_peer", "The peer closed the connection during the handshake."
_REQUEST_TIMEOUT = "association_request_timeout"
_TLS_HANDSHAKE = b"\x16"  # content type of a ClientHello record, RFC 8446 section 5.1


class _Refused(Exception):
    """A connection that ends before any association; carries the rule and the advice."""

    def __init__(self, rule: str, advice: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.advice = advice


class _Waiting:
    """The connections that have no association yet, oldest first, by peer address and port."""

    def __init__(self) -> None:
        self._limit = min(MAX_WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._lock = threading.Lock()
        self._connections: dict[object, socket.socket] = {}

    def add(self, peer: object, connection: socket.socket) -> None:
        """Add one; over the limit the oldest is shut down, so that silent clients never keep others out."""
        with self._lock:
            self._connections[peer] = connection
            if len(self._connections) > self._limit:
                _shut_down(self._connections.pop(next(iter(self._connections))))

    def replace(self, peer: object, connection: socket.socket) -> None:
        """Note that the connection is now another socket object."""
        with self._lock:
            if peer in self._connections:
                self._connections[peer] = connection

    def discard(self, peer: object) -> bool:
        """Take one out; False when it had to make room for another."""
        with self._lock:
            return self._connections.pop(peer, None) is not None

    def shut_down_all(self) -> None:
        """End all of them."""
        with self._lock:
            for connection in self._connections.values():
                _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    """Wake the thread that waits for this connection and leave closing to it."""
    with contextlib.suppress(OSError):  # the peer was first
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(RequestHandler):
    """Makes the association for one connection."""

    server: AssociationListener

    def _create_association(self) -> AcceptedAssociation:
        server = self.server
        association = AcceptedAssociation(
            server.ae,
            server.node,
            server.admission,
            server.hooks,
            tls=isinstance(self.request, ssl.SSLSocket),
            certificate=Certificate.of(self.request),
        )
        association._server = server
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        association.set_socket(DeadlineSocket(association, self.request, server.node.idle_seconds))
        association.acceptor.maximum_length = server.node.max_pdu
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        association.acceptor.implementation_version_name = server.ae.implementation_version_name
        association.requestor.address_info = self.remote
        return association


class AssociationListener(ThreadedAssociationServer):
    """One listening socket, with TLS where a context is given."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self, ae: AE, port: int, node: NodeSettings, admission: Admission, hooks: Hooks, *, tls: ssl.SSLContext | None
    ) -> None:
        self.node = node
        self.admission = admission
        self.hooks = hooks
        self._tls = tls
        self._waiting = _Waiting()
        offered = contexts.supported(may_echo=True, may_store=True)
        super().__init__(ae, (node.bind_address, port), node.ae_title, offered, request_handler=_Handler)
        ae._servers.append(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept without a word: what a peer does next must not hold up others."""
        connection, address = self.socket.accept()
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, wait for the first byte, then start the association; runs in the connection's thread."""
        self._waiting.add(client_address, request)
        connection: socket.socket = request
        refusal: tuple[str, str] | None = None
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                deadline = time.monotonic() + self.node.handshake_seconds
                self._check_first_byte(request)
                # from here on the descriptor belongs to the wrapping socket
                connection = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                self._waiting.replace(client_address, connection)
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                connection.do_handshake()  # the timeout is that of the whole handshake, drip feeds included
            self._await_request(connection)
            self.finish_request(connection, client_address)
        except _Refused as refused:
            refusal = refused.rule, refused.advice
        except ssl.SSLError as error:
            refusal = handshake_refusal(error)
        except TimeoutError:
            refusal = "tls_timeout", "The peer must finish its TLS handshake in time; check what connects there."
        except OSError:
            refusal = _CLOSED
        except Exception as error:  # noqa: BLE001 - boundary of a thread; only the class name may leave it
            self.hooks.failed(type(error).__name__)
        else:
            self._waiting.discard(client_address)
            return
        if not self._waiting.discard(client_address):
            refusal = "too_many_connections", "Too many connections wait without an association; look for a flood."
        if refusal is not None:
            self._tell(refusal, connection, str(client_address[0]))
        connection.close()

    def _tell(self, refusal: tuple[str, str], connection: socket.socket, address: str) -> None:
        """Report one refused connection."""
        rule, advice = refusal
        certificate = Certificate.of(connection) if rule == _REQUEST_TIMEOUT else None
        self.hooks.tell_refused(
            Refusal(
                rule=rule,
                advice=advice,
                address=address.removeprefix("::ffff:"),
                certificate=certificate.sha256 if certificate else None,
            )
        )

    def _check_first_byte(self, raw: socket.socket) -> None:
        """Tell plain DICOM, HTTP and noise from TLS before OpenSSL gives each its own name."""
        raw.settimeout(self.node.handshake_seconds)
        first = raw.recv(1, socket.MSG_PEEK)
        if not first:
            raise _Refused(*_CLOSED)
        if first != _TLS_HANDSHAKE:
            raise _Refused("tls_plain_tcp", "This is the TLS port: switch the peer to TLS.")

    def _await_request(self, connection: socket.socket) -> None:
        """Wait for the A-ASSOCIATE-RQ to begin: pynetdicom's threads poll, and a silent peer must cost nothing."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not getattr(connection, "pending", int)() and not poll.poll(self.node.request_seconds * 1000):
            raise _Refused(_REQUEST_TIMEOUT, "The peer must send its association request at once.")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a failure of the accept loop by its class name; socketserver would print a traceback."""
        self.hooks.failed("AcceptError")

    def end(self) -> None:
        """Stop accepting and end the connections that have no association."""
        self.shutdown()
        self._waiting.shut_down_all()
