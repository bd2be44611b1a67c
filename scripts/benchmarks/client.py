"""The one client that every server meets: a process for each association, mutual TLS 1.3, TCP_NODELAY, prebuilt PDUs.

A response that is not status 0000 ends the measurement with an error: nothing is fast that did not arrive.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.objects import MAX_PDU, Kind, Message, new_uid
from radnode.network import wire
from radnode.network.command_set import CommandSet, Tag
from radnode.network.contexts import proposed

TIMEOUT_SECONDS = 120.0
_HEADER = struct.Struct(">BxL")
RAW_HEADER = struct.Struct(">QQ")  # to a raw receiver: bytes of an object, objects for each acknowledgement


class PushFailed(Exception):
    """A server refused an object or broke off; the text says what it answered."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: `called` is its AE title, None where it is a raw receiver; `answers` False: one at the end."""

    port: int
    pki: Path
    called: str | None = None
    answers: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """What one or several associations sent at once; times are time.monotonic() seconds."""

    begun: float
    ended: float
    data_set_bytes: int
    latencies: tuple[float, ...]  # seconds from a request's first byte to its response's last, sorted; none unanswered
    tls: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.begun

    @property
    def megabytes_per_second(self) -> float:
        """Data sets in 10**6 bytes per second."""
        return self.data_set_bytes / self.seconds / 1e6

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return self.latencies[min(len(self.latencies) * percent // 100, len(self.latencies) - 1)] * 1000


class Clients:
    """Processes that send when they are told to, all at the same moment."""

    def __init__(self, count: int, kinds: Sequence[Kind]) -> None:
        context = multiprocessing.get_context("fork")
        by_name = {kind.name: kind for kind in kinds}
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, by_name), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def push(self, target: Target, kind: str, count: int, associations: int) -> Sent:
        """Send `count` objects in all, over so many associations that are all open before the first object goes.

        Raises:
            PushFailed: a server answered anything but success.
        """
        pipes = self._pipes[:associations]
        shares = [count // associations + (number < count % associations) for number in range(associations)]
        for pipe, share in zip(pipes, shares, strict=True):
            pipe.send((target, kind, share))
        for said in [pipe.recv() for pipe in pipes]:
            if said != "ready":
                raise PushFailed(said)
        for pipe in pipes:
            pipe.send("go")
        results = [pipe.recv() for pipe in pipes]
        for result in results:
            if not isinstance(result, Sent):
                raise PushFailed(result)
        return Sent(
            min(one.begun for one in results),
            max(one.ended for one in results),
            sum(one.data_set_bytes for one in results),
            tuple(sorted(latency for one in results for latency in one.latencies)),
            results[0].tls,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            process.kill()


def _serve(pipe: Connection, kinds: Mapping[str, Kind]) -> None:
    """Do one job after the other until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            target, name, count = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_send(pipe, target, kinds[name], count))
        except (OSError, EOFError, PushFailed, wire.ProtocolError) as error:
            pipe.send(f"{type(error).__name__}: {error}")


def _send(pipe: Connection, target: Target, kind: Kind, count: int) -> Sent:
    with connect(target) as connection:
        context_id, max_pdu = (1, MAX_PDU) if target.called is None else associate(connection, target.called, kind)
        messages = [Message(one, kind.sop_class_uid, context_id, max_pdu) for one in kind.in_new_study()]
        if target.called is None:
            connection.sendall(RAW_HEADER.pack(len(messages[0].buffer), 1 if target.answers else count))
            messages = [one for one in messages if len(one.buffer) == len(messages[0].buffer)]
        names = [new_uid().encode() for _ in range(count)]
        latencies = []
        pipe.send("ready")
        pipe.recv()
        begun = time.monotonic()
        for number, name in enumerate(names):
            message = messages[number % len(messages)]
            message.name(name)
            started = time.monotonic()
            connection.sendall(message.buffer)
            if target.called is not None:
                read_success(connection)
            elif (target.answers or number == count - 1) and not connection.recv(1):
                raise PushFailed("the raw receiver closed")
            latencies.append(time.monotonic() - started)
        ended = time.monotonic()
        if target.called is not None:
            connection.sendall(wire.RELEASE_RQ_PDU)
            if read_pdu(connection)[0] != wire.RELEASE_RP:
                raise PushFailed("no A-RELEASE-RP")
        sizes = [message.data_set_bytes for message in messages]
        sent = sum(sizes[number % len(sizes)] for number in range(count))
        answered = tuple(latencies) if target.answers else ()
        return Sent(begun, ended, sent, answered, connection.version() or "")


def connect(target: Target) -> ssl.SSLSocket:
    """Connect and shake hands as the modality.

    Raises:
        OSError: no connection or no handshake.
    """
    raw = socket.create_connection(("127.0.0.1", target.port), TIMEOUT_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls_context(target.pki).wrap_socket(raw, server_hostname="localhost")


def tls_context(pki: Path) -> ssl.SSLContext:
    """Return the modality's TLS context."""
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "modality.crt", pki / "modality.key")
    return context


def associate(connection: ssl.SSLSocket, called: str, kind: Kind) -> tuple[int, int]:
    """Ask for an association for one kind; return its context ID and the longest PDU that the server takes.

    Raises:
        PushFailed: the server rejects it or the context.
    """
    offers = proposed([(kind.sop_class_uid, str(ExplicitVRLittleEndian))])
    connection.sendall(wire.associate_rq("MODALITY1", called, offers))
    pdu_type, body = read_pdu(connection)
    if pdu_type != wire.ASSOCIATE_AC:
        raise PushFailed(f"the answer to A-ASSOCIATE-RQ is PDU {pdu_type:02X} {body[:4].hex()}")
    accepted, max_pdu = wire.read_associate_ac(body)
    if 1 not in accepted:
        raise PushFailed("the presentation context is not accepted")
    return 1, max_pdu


def read_pdu(connection: ssl.SSLSocket) -> tuple[int, bytes]:
    """Return type and variable field of the next PDU.

    Raises:
        PushFailed: the server closed.
    """
    received = b""
    while len(received) < _HEADER.size or len(received) < _HEADER.size + _HEADER.unpack_from(received)[1]:
        more = connection.recv(65536)
        if not more:
            raise PushFailed("the server closed the connection")
        received += more
    return received[0], received[_HEADER.size :]


def read_success(connection: ssl.SSLSocket) -> None:
    """Read the answer to a C-STORE.

    Raises:
        PushFailed: it is anything but success.
    """
    command, last = b"", False
    while not last:
        pdu_type, body = read_pdu(connection)
        if pdu_type != wire.P_DATA:
            raise PushFailed(f"the answer to C-STORE is PDU {pdu_type:02X} {body[:4].hex()}")
        for last, fragment in wire.read_p_data(body):  # noqa: B007 - the loop above asks for it
            command += fragment
    status = CommandSet.parse(command).ushort(Tag.STATUS)
    if status != 0:
        raise PushFailed(f"C-STORE was answered {status:04X}")
