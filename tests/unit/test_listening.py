"""What listener processes share: ports that are bound once, and the counts that say whose turn it is."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from radnode.errors import ConfigError
from radnode.listening import Endpoints, Load
from radnode.settings import NetworkSettings, NodeSettings


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    bound = Endpoints.bind(NodeSettings(port=0), 2)
    yield bound
    bound.close()


def port(endpoints: Endpoints) -> int:
    return int(endpoints.sockets[0].getsockname()[1])


def test_nobody_connects_before_a_process_listens(endpoints: Endpoints) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port(endpoints)), 5)
    endpoints.sockets[0].listen()
    socket.create_connection(("127.0.0.1", port(endpoints)), 5).close()


@pytest.mark.parametrize("which", ["port", "plain_port"])
def test_port_that_is_taken_is_a_config_error_and_leaves_nothing_open(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = NodeSettings(**{"port": 0, which: taken.getsockname()[1]})
        gc.collect()
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(ConfigError, match=rf"port {taken.getsockname()[1]}: .*in use"):
            Endpoints.bind(settings)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_address_of_no_interface_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        Endpoints.bind(NodeSettings(bind_address="192.0.2.1", port=0))


def test_address_of_ip_version_6() -> None:
    bound = Endpoints.bind(NodeSettings(bind_address="::1", port=0))
    assert bound.sockets[0].family == socket.AF_INET6
    bound.close()


def test_who_inherits_accepts_from_the_same_queue(endpoints: Endpoints) -> None:
    inherited = Endpoints.inherit([os.dup(descriptor) for descriptor in endpoints.descriptors])
    inherited.sockets[0].listen()
    endpoints.close()
    with socket.create_connection(("127.0.0.1", port(inherited)), 5):
        accepted, _ = inherited.sockets[0].accept()
        accepted.close()
        with pytest.raises(BlockingIOError):
            inherited.sockets[0].accept()
    inherited.close()


def test_turn_is_that_of_the_process_with_fewest_connections(endpoints: Endpoints) -> None:
    first, second = Load(endpoints.memory, 0), Load(endpoints.memory, 1)
    first.listen(is_listening=True)
    first.add(5)
    assert first.is_least  # the second does not listen
    second.listen(is_listening=True)
    assert (first.is_least, second.is_least) == (False, True)
    second.add(5)
    assert (first.is_least, second.is_least) == (True, True)
    first.add(-1)
    assert (first.is_least, second.is_least) == (True, False)
    first.listen(is_listening=False)
    assert second.is_least


def test_who_is_alone_has_every_turn() -> None:
    load = Load()
    load.listen(is_listening=True)
    load.add(3)
    assert load.is_least


def test_as_many_processes_as_cores_or_as_were_asked_for() -> None:
    assert NetworkSettings(listeners=7).processes == 7
    assert NetworkSettings().processes == min(2, len(os.sched_getaffinity(0)))
