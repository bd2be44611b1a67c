"""Deadlines: whoever is silent, slow or gone holds nobody up and no slot."""

from __future__ import annotations

import socket
import struct
import time

from support.network import (
    abort,
    associated,
    echo_milliseconds,
    read_pdu,
    request_pdu,
    running_node,
    send,
    small_object,
    store_command,
    until,
)

from radnode.network import wire
from radnode.network.command_set import encode


def test_silent_clients_and_half_a_client_hello_do_not_slow_an_echo(folder):
    with running_node(folder, handshake_seconds=3) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port), 5) for _ in range(400)]
        for connection in silent[:50]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        began = time.monotonic()
        milliseconds = echo_milliseconds(node)
        whole = time.monotonic() - began
        print(f"\n400 silent clients: C-ECHO {milliseconds:.1f} ms, with connect and TLS {whole * 1000:.0f} ms")
        assert whole < 1
        for connection in silent:
            assert read_pdu(connection) == b""
            connection.close()
        assert set(node.await_refusals(400)) == {"tls_timeout"}


def test_peer_that_never_asks_is_closed_at_the_deadline(folder):
    with running_node(folder, request_seconds=0.5) as node:
        with node.connect() as connection:
            assert read_pdu(connection) == b""
        assert node.await_refusals() == ["association_request_timeout"]


def test_half_a_request_and_a_drip_feed_end_at_the_deadline(folder):
    with running_node(folder, request_seconds=0.7) as node:
        began = time.monotonic()
        with node.connect() as connection:
            for byte in bytes(request_pdu()[:10]):
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.1)
            assert abort(read_pdu(connection)) == (0, 0)
        assert time.monotonic() - began < 4
        assert node.await_refusals() == ["pdu_timeout"]


def test_idle_association_is_aborted_and_gives_its_slot_back(folder):
    with running_node(folder, idle_seconds=0.5) as node:
        with associated(node) as connection:
            assert node.listener.running == 1
            assert abort(read_pdu(connection))[0] in (0, 2)
        until(lambda: node.listener.running == 0)
        assert node.events[-1].end == "aborted"


def test_stalled_pdu_within_the_association_gives_its_slot_back(folder):
    with running_node(folder, idle_seconds=0.5) as node:
        with associated(node) as connection:
            connection.sendall(b"\x04\x00\x00\x00\x10\x00abc")
            assert abort(read_pdu(connection)) == (2, 0)
        until(lambda: node.listener.running == 0)
        assert node.await_refusals() == ["pdu_timeout"]


def test_slow_receive_is_not_idleness(folder):
    def slow(request, data_set):
        time.sleep(1.2)

    with running_node(folder, receive=slow, idle_seconds=0.5) as node:
        send(node, small_object(), small_object())
        assert len(node.received) == 2


def test_peer_that_vanishes_within_an_object_gives_its_slot_back(node):
    connection = associated(node)
    for pdu in wire.p_data(3, encode(store_command()), command=True, max_length=16384):
        connection.sendall(pdu)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    connection.close()
    until(lambda: node.listener.running == 0)
    until(lambda: len(node.events) == 2)
    assert node.events[1].end == "aborted"
    assert node.received == []


def test_peer_that_leaves_after_the_handshake_is_reported_once(node):
    node.connect().close()
    assert node.await_refusals() == ["no_association_request"]


# --- PDUs and messages that break the standard
