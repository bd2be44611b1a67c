"""A listener in this process, and the certificates of two authorities; the listener's tests run on both its lanes."""

from __future__ import annotations

import pytest
from support import network
from support.network import running_node

from radnode import pki


def pytest_generate_tests(metafunc):
    name = metafunc.module.__name__.rpartition(".")[2]
    if name.startswith("test_network_") and name != "test_network_storage_scu":
        metafunc.parametrize("lane", [True, False], ids=["fast-lane", "pynetdicom"], indirect=True)


@pytest.fixture(autouse=True)
def lane(request, monkeypatch):
    """Whether listeners read C-STORE in the fast lane."""
    monkeypatch.setattr(network, "FAST_LANE", getattr(request, "param", True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    return folder


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other-pki")
    pki.make_test_pki(folder)
    return folder


@pytest.fixture
def node(folder, lane):
    with running_node(folder) as node:
        yield node
