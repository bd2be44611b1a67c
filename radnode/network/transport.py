"""Sockets of the listener: accept at once; handshake and first byte in the connection's own thread, with deadlines."""

from __future__ import annotations

import contextlib
import itertools
import resource
import select
import selectors
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from radnode.errors import ConfigError
from radnode.listening import Load
from radnode.model import Refusal
from radnode.network.admission import Admission, Certificate
from radnode.network.association import AcceptedAssociation
from radnode.network.contexts import Contexts
from radnode.network.deadline_socket import DeadlineSocket, acknowledge_at_once, linger
from radnode.network.hooks import Hooks
from radnode.network.renewal import ServerContexts
from radnode.network.tls import handshake_refusal
from radnode.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    from pynetdicom import AE

    from radnode.settings import NodeSettings

MAX_WAITING = 1024  # connections without an association; the oldest makes room
_BATCH = 16
_BREATHER_SECONDS = 0.05
_COURTESY_SECONDS = 0.002  # how long a process that has fewer connections may take to accept one
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
    """The connections that have no association yet, oldest first, by peer address and port, and since when."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._limit = min(MAX_WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._lock = threading.Lock()
        self._connections: dict[object, tuple[socket.socket, float]] = {}

    def add(self, peer: object, connection: socket.socket) -> None:
        """Add one; over the limit the oldest is shut down, so that silent clients never keep others out."""
        with self._lock:
            self._connections[peer] = (connection, time.monotonic())
            self._load.add(1)
            if len(self._connections) > self._limit:
                _shut_down(self._connections.pop(next(iter(self._connections)))[0])
                self._load.add(-1)

    def since(self, peer: object) -> float:
        """Return when the connection was accepted, on time.monotonic()."""
        with self._lock:
            return self._connections[peer][1] if peer in self._connections else time.monotonic()

    def replace(self, peer: object, connection: socket.socket) -> None:
        """Note that the connection is now another socket object."""
        with self._lock:
            if peer in self._connections:
                self._connections[peer] = (connection, self._connections[peer][1])

    def discard(self, peer: object) -> bool:
        """Take one out; False when it had to make room for another."""
        with self._lock:
            if self._connections.pop(peer, None) is None:
                return False
            self._load.add(-1)
            return True

    def shut_down_all(self) -> None:
        """End all of them."""
        with self._lock:
            for connection, _ in self._connections.values():
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
            server.offered,
            fast_lane=server.fast_lane,
            tls=isinstance(self.request, ssl.SSLSocket),
            certificate=Certificate.of(self.request),
        )
        association._server = server
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        association.set_socket(DeadlineSocket(association, self.request, server.node.idle_seconds))
        association.acceptor.maximum_length = server.node.max_pdu
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        association.acceptor.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        association.requestor.address_info = self.remote
        return association


class AssociationListener(ThreadedAssociationServer):
    """One listening socket, with TLS where a context is given.

    Raises:
        OSError: another socket listens on this port.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self,
        ae: AE,
        bound: socket.socket,
        node: NodeSettings,
        admission: Admission,
        hooks: Hooks,
        offered: Contexts,
        *,
        load: Load,
        fast_lane: bool,
        tls: ServerContexts | None,
    ) -> None:
        self.node = node
        self.fast_lane = fast_lane
        self.admission = admission
        self.hooks = hooks
        self.offered = offered
        self._tls = tls
        self._bound = bound
        self._load = load
        self._waiting = _Waiting(load)
        self._ending = threading.Event()
        supported = offered.supported(may_echo=True, may_store=True)
        super().__init__(ae, bound.getsockname(), node.ae_title, supported, request_handler=_Handler)
        ae._servers.append(self)

    def server_bind(self) -> None:
        """Take the socket that is bound already, which other processes may listen on too."""
        unbound, self.socket = vars(self)["socket"], self._bound
        unbound.close()
        self.server_address = self._bound.getsockname()

    def serve_forever(self, poll_interval: float = 0.1) -> None:
        """Accept until `shutdown`; a connection gets its thread with its first byte, so silent ones need none."""
        silent: dict[socket.socket, tuple[Any, float]] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            while not self._ending.is_set():
                speaking = [key.fileobj for key, _ in selector.select(poll_interval)]
                if self.socket in speaking:
                    speaking.remove(self.socket)
                    self._accept(silent, selector)
                speaking.extend(self._expired(silent))
                for connection in speaking:
                    if connection in silent:
                        selector.unregister(connection)
                        self._begin(connection, silent.pop(connection)[0])
        for connection, (address, _) in silent.items():
            self._waiting.discard(address)
            connection.close()

    def _accept(self, silent: dict[socket.socket, tuple[Any, float]], selector: selectors.BaseSelector) -> None:
        """Accept one without a word, unless another process is quicker: what a peer does next must hold up nobody."""
        if not self._load.is_least:
            self._ending.wait(_COURTESY_SECONDS)
        try:
            connection, address = self.socket.accept()
        except BlockingIOError:
            return
        except OSError:  # out of descriptors, or the peer is gone
            self._ending.wait(_BREATHER_SECONDS)
            return
        self._waiting.add(address, connection)
        silent[connection] = (address, time.monotonic() + self._first_byte_seconds)
        selector.register(connection, selectors.EVENT_READ)

    @property
    def _first_byte_seconds(self) -> float:
        return self.node.handshake_seconds if self._tls is not None else self.node.request_seconds

    def _expired(self, silent: dict[socket.socket, tuple[Any, float]]) -> list[socket.socket]:
        """Return the first few whose deadline has passed; few, so that a flood's end does not hold up others."""
        now = time.monotonic()
        return [connection for connection, (_, end) in itertools.islice(silent.items(), _BATCH) if end <= now]

    def _begin(self, connection: socket.socket, address: Any) -> None:
        """Give the connection its thread."""
        try:
            self.process_request(connection, address)
        except RuntimeError as error:  # no thread can be started
            self.hooks.failed(type(error).__name__)
            self._waiting.discard(address)
            connection.close()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, wait for the request, then start the association; runs in the connection's thread."""
        connection: socket.socket = request
        refusal: tuple[str, str] | None = None
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                deadline = self._waiting.since(client_address) + self.node.handshake_seconds
                self._check_first_byte(request)
                # from here on the descriptor belongs to the wrapping socket
                connection = self._tls.current().wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                self._waiting.replace(client_address, connection)
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                connection.do_handshake()  # the timeout is that of the whole handshake, drip feeds included
                deadline = time.monotonic() + self.node.request_seconds
            else:
                deadline = self._waiting.since(client_address) + self.node.request_seconds
            self._await_request(connection, deadline)
            self.finish_request(connection, client_address)
        except _Refused as refused:
            refusal = refused.rule, refused.advice
        except ssl.SSLError as error:
            refusal = handshake_refusal(error)
        except ConfigError as error:
            refusal = "tls_files_unusable", str(error)
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
        if isinstance(connection, ssl.SSLSocket):
            linger(connection)  # a client of TLS 1.3 has sent its request before it learns of the alert
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
        raw.setblocking(False)
        try:
            first = raw.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            raise TimeoutError from None
        if not first:
            raise _Refused(*_CLOSED)
        if first != _TLS_HANDSHAKE:
            raise _Refused("tls_plain_tcp", "This is the TLS port: switch the peer to TLS.")

    def _await_request(self, connection: socket.socket, deadline: float) -> None:
        """Wait for the A-ASSOCIATE-RQ to begin: pynetdicom's threads poll, and a silent peer must cost nothing."""
        acknowledge_at_once(connection)  # the end of the handshake, which the request waits for
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not getattr(connection, "pending", int)() and not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise _Refused(_REQUEST_TIMEOUT, "The peer must send its association request at once.")

    def shutdown(self) -> None:
        """Stop accepting; `serve_forever` returns soon after."""
        self._ending.set()

    def server_close(self) -> None:
        """Close the listening socket, which others may go on to listen on, and let pynetdicom forget this server."""
        self._bound.close()
        with contextlib.suppress(ValueError):  # the second time
            self.ae._servers.remove(self)

    def end_waiting(self) -> None:
        """End the connections that have no association."""
        self._waiting.shut_down_all()
