"""A peer on a raw socket for machines and fuzzers: legal PDUs, broken ones, and what must come back."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.network import Node, request_pdu, running_node

LANES = (True, False)  # values of network.fast_lane: the ways a C-STORE can take through the listener
HEADER = struct.Struct(">BxL")
CALLING = "HERE"  # known by its address, so that it may do without TLS
REQUEST = bytes(request_pdu(CALLING))
PATIENCE_SECONDS = 8  # an answer that takes longer is silence; every deadline of `plain_node` is longer


@contextmanager
def plain_node(folder: Path, lane: bool = LANES[0], **changes: object) -> Iterator[Node]:
    """A listener with a plain port, whose own deadlines never come to the help of one that forgot to answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {"plain_port": port, "request_seconds": 30, "idle_seconds": 30, **changes}
    with running_node(folder, network={"fast_lane": lane}, **values) as node:
        yield node


def connect(node: Node, *, tls: bool = False) -> socket.socket:
    """A connection that ends by a reset, which leaves no port in TIME-WAIT."""
    port = node.port if tls else node.settings.node.plain_port
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return node.client().wrap_socket(connection, server_hostname="localhost") if tls else connection


def finish(connection: socket.socket) -> bytes:
    """Close this side and return all that still came; TimeoutError when the node leaves its own open."""
    heard = b""
    connection.settimeout(PATIENCE_SECONDS)
    try:
        connection.shutdown(socket.SHUT_WR)  # over TLS this ends both directions
        while part := connection.recv(65536):
            heard += part
    except TimeoutError:
        raise
    except OSError:  # reset, or closed before we did
        pass
    return heard


def cut(stream: bytes) -> list[bytes]:
    """Cut bytes where their own PDU headers say; the last may be shorter than it claims."""
    pdus, offset = [], 0
    while offset < len(stream):
        claimed = HEADER.unpack_from(stream, offset)[1] if len(stream) - offset >= HEADER.size else 0
        pdus.append(stream[offset : offset + HEADER.size + claimed])
        offset += HEADER.size + claimed
    return pdus


def is_whole(pdu: bytes) -> bool:
    """Say whether a PDU is as long as its header says."""
    return len(pdu) >= HEADER.size and len(pdu) == HEADER.size + HEADER.unpack_from(pdu)[1]


def say(connection: socket.socket, content: bytes, cuts: list[int]) -> None:
    """Send bytes in as many parts as there are cuts (positions modulo the length), each by itself."""
    ends = sorted({cut % len(content) for cut in cuts} | {len(content)})
    for start, end in zip([0, *ends], ends, strict=False):
        if start < end:
            connection.sendall(content[start:end])


def say_in_vain(connection: socket.socket, content: bytes, cuts: list[int]) -> None:
    """Send what the node may hang up on before the end of it."""
    with suppress(ConnectionError):
        say(connection, content, cuts)


class Census:
    """Threads, descriptors and associations of this process, to be no more afterwards."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._threads, self._descriptors = self._count()

    @staticmethod
    def _count() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    def settle(self) -> None:
        """Wait until everything is as it was; AssertionError when it does not come to that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            threads, descriptors = self._count()
            left = threads - self._threads, descriptors - self._descriptors, self._node.listener.running
            if max(left) <= 0:
                return
            assert time.monotonic() < deadline, f"left over: threads, descriptors, associations {left}"
            time.sleep(0.005)
