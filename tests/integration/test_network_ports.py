"""The plain port, draining, and ports that are taken."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from support.network import (
    EXPLICIT,
    abort,
    associated,
    read_pdu,
    running_node,
    send,
    small_object,
    until,
)

from radnode.errors import ConfigError, DestinationRefused
from radnode.network.contexts import proposed
from radnode.network.server import Listener
from radnode.network.storage_scu import echo, open_destination


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("calling", "rule"),
    [("HERE", None), ("MODALITY1", "calling_ae_title_needs_tls"), ("ELSEWHERE", "address_not_allowed")],
)
def test_plain_port_binds_titles_to_addresses(folder, calling, rule):
    with running_node(folder, plain_port=free_port()) as node:
        destination = node.destination(port=node.listener.bound_plain_port, tls=False)
        if rule is None:
            part10 = small_object()
            with open_destination(
                destination, context=None, calling_ae_title=calling, objects=[part10], timeout_seconds=5
            ) as association:
                association.store(part10)
            assert node.received[0][0].peer.certificate is None
        else:
            with pytest.raises(DestinationRefused, match="1/1/3"):
                echo(destination, context=None, calling_ae_title=calling, timeout_seconds=5)
            assert node.await_refusals() == [rule]


def test_silent_client_of_the_plain_port_is_closed_at_the_deadline(folder):
    with running_node(folder, plain_port=free_port(), request_seconds=0.4) as node:
        with socket.create_connection(("127.0.0.1", node.listener.bound_plain_port), 5) as connection:
            assert read_pdu(connection) == b""
        assert node.await_refusals() == ["association_request_timeout"]


# --- end


def test_drain_lets_a_running_store_finish_and_accepts_nobody(folder):
    entered, go_on = threading.Event(), threading.Event()

    def slow(request, data_set):
        entered.set()
        go_on.wait(5)

    with running_node(folder, receive=slow) as node:
        outcome = []
        sender = threading.Thread(target=lambda: outcome.append(send(node, small_object())))
        sender.start()
        entered.wait(5)
        draining = threading.Thread(target=node.listener.drain, args=(5,))
        draining.start()
        time.sleep(0.3)
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", node.port), 1)
        go_on.set()
        sender.join(5)
        draining.join(5)
        assert outcome == [None]
        assert len(node.received) == 1


def test_drain_aborts_at_the_deadline(folder):
    with running_node(folder) as node, associated(node) as connection:
        began = time.monotonic()
        node.listener.drain(0.3)
        assert time.monotonic() - began < 2
        assert abort(read_pdu(connection)) == (0, 0)
        until(lambda: node.listener.running == 0)


def test_taken_port_is_a_config_error(node):
    settings = node.settings.model_copy(update={"node": node.settings.node.model_copy(update={"port": node.port})})
    with pytest.raises(ConfigError, match="Cannot listen"):
        Listener(settings, lambda *_: None, lambda _: None)


def test_proposals_over_128_are_refused_before_the_network():
    with pytest.raises(ValueError, match="128"):
        proposed((f"1.2.{n}", EXPLICIT) for n in range(129))
