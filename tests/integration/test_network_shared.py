"""Two listeners on one port, as two processes of a node are: who takes which connection, and the limits of both."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.network import Node, associated, read_pdu, rejection, request_pdu, running_node, until

from radnode.listening import Endpoints
from radnode.network.slots import Slots
from radnode.settings import NodeSettings


@contextmanager
def two_listeners(folder: Path, **node_values) -> Iterator[list[Node]]:
    """Two listeners with sockets and locks of their own on one port."""
    with ExitStack() as stack:
        nodes = []
        endpoints = Endpoints.bind(NodeSettings(port=0), 2)
        for number in range(2):
            own = Endpoints.inherit([os.dup(descriptor) for descriptor in endpoints.descriptors])
            shared = {"endpoints": own, "number": number, "slots": Slots(folder / "associations.lock")}
            nodes.append(stack.enter_context(running_node(folder, shared=shared, **node_values)))
        endpoints.close()
        yield nodes


def held(nodes: list[Node]) -> list[int]:
    return [node.listener.running for node in nodes]


def test_associations_are_spread_evenly(folder):
    with two_listeners(folder) as nodes, ExitStack() as stack:
        for count in range(1, 5):
            for _ in range(2):
                stack.enter_context(associated(nodes[0]))
            until(lambda count=count: held(nodes) == [count, count])


def test_associations_that_come_at_once_are_spread_evenly(folder):
    with two_listeners(folder) as nodes, ExitStack() as stack:
        connections = []
        threads = [threading.Thread(target=lambda: connections.append(associated(nodes[0]))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in connections:
            stack.enter_context(connection)
        until(lambda: sum(held(nodes)) == 8)
        assert max(held(nodes)) <= 5


def test_limits_hold_over_both(folder):
    with two_listeners(folder, max_associations=5, max_associations_per_peer=3) as nodes, ExitStack() as stack:
        for _ in range(3):
            first = stack.enter_context(associated(nodes[0]))
        with nodes[0].connect() as fourth:
            fourth.sendall(request_pdu())
            assert rejection(read_pdu(fourth)) == (2, 3, 2)
        for _ in range(2):
            stack.enter_context(associated(nodes[0], calling="SECOND"))
        with nodes[0].connect() as sixth:
            sixth.sendall(request_pdu("SECOND"))
            assert rejection(read_pdu(sixth)) == (2, 3, 2)
        until(lambda: sum(len(node.refusals) for node in nodes) == 2)
        rules = {refusal.rule for node in nodes for refusal in node.refusals}
        assert rules == {"too_many_associations_of_peer", "too_many_associations"}
        first.close()
        until(lambda: sum(held(nodes)) == 4)
        stack.enter_context(associated(nodes[0]))


def test_one_that_drains_leaves_the_port_to_the_other(folder):
    with two_listeners(folder) as nodes, ExitStack() as stack:
        nodes[0].listener.drain(0)
        for _ in range(3):
            stack.enter_context(associated(nodes[1]))
        assert held(nodes) == [0, 3]
