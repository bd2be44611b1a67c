"""A peer on a raw socket for machines and fuzzers: legal PDUs, broken ones, and what must come back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.network import Node, request_pdu, running_node

Lane = tuple[tuple[str, object], ...]
LANES: tuple[Lane, ...] = ((),)  # settings of the ways a C-STORE can take through the listener
REPORTED = frozenset({"InvalidEventError"})  # a primitive that crosses an abort: reported, not mended here
HEADER = struct.Struct(">BxL")
CALLING = "HERE"  # known by its address, so that it may do without TLS
REQUEST = bytes(request_pdu(CALLING))
PATIENCE_SECONDS = 8  # an answer that takes longer is silence; every deadline of `plain_node` is longer


@contextmanager
def plain_node(folder: Path, lane: Lane = LANES[0], **changes: object) -> Iterator[Node]:
    """A listener with a plain port, whose own deadlines never come to the help of one that forgot to answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {"plain_port": port, "request_seconds": 30, "idle_seconds": 30, **dict(lane), **changes}
    with running_node(folder, **values) as node:
        yield node


@contextmanager
def connected(node: Node) -> Iterator[socket.socket]:
    """A plain connection; it ends by a reset, which leaves no port in TIME-WAIT."""
    with socket.create_connection(("127.0.0.1", node.settings.node.plain_port), PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        yield connection


def finish(connection: socket.socket) -> bytes:
    """Close this side and return all that still came; TimeoutError when the node does not close its own."""
    heard = b""
    connection.settimeout(PATIENCE_SECONDS)
    try:
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            heard += part
    except (ConnectionError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
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
