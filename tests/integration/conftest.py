"""A listener in this process, and the certificates of two authorities."""

from __future__ import annotations

import pytest
from support.network import (
    running_node,
)

from radnode import pki


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
def node(folder):
    with running_node(folder) as node:
        yield node
