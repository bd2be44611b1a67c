"""kill -9 of one listener of two in the middle of a push: the other serves on, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films
from support.crash import CrashNode, Ledger
from support.node import wait_for

PUSHERS, IMAGES_EACH = 4, 30
SETTINGS = {
    "RADNODE_NETWORK__LISTENERS": "2",
    "RADNODE_NODE__MAX_ASSOCIATIONS": str(PUSHERS),
    "RADNODE_NODE__MAX_ASSOCIATIONS_PER_PEER": str(PUSHERS),
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CrashNode]:
    with CrashNode(tmp_path / "node", overrides=SETTINGS) as node:
        yield node.start(role="intake", wait=("intake", "sequencer"))


def test_one_listener_killed_in_a_push_harms_only_its_own_associations(node: CrashNode) -> None:
    ledgers = [Ledger(node, [films.fresh(films.CT[0]) for _ in range(IMAGES_EACH)], pause=0.1) for _ in range(PUSHERS)]
    threads = [threading.Thread(target=ledger.push, args=(60,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(len(ledger.promised) >= 3 for ledger in ledgers), 30, "all push")
    assert [ledger.unanswered for ledger in ledgers] == [0] * PUSHERS
    killed, survivor = node.pids("intake")
    os.kill(killed, signal.SIGKILL)
    for thread in threads:
        thread.join()
    # No more associations than these are allowed: they came back because the kernel had freed the slots.
    assert all(len(ledger.promised) == IMAGES_EACH for ledger in ledgers)
    assert sorted(ledger.unanswered > 0 for ledger in ledgers) == [False, False, True, True]
    assert survivor in wait_for(lambda: (pids := node.pids("intake"))[1:] and pids, 20, "the other is back")
    [died] = node.events("role_died")
    assert (died["rule"], died["pid"]) == ("intake", killed)
    assert node.query("SELECT count(*) FROM instances") == [(PUSHERS * IMAGES_EACH,)]
    assert node.stop() == 0
    assert (node.missing(), node.orphans(), node.leftovers()) == (set(), set(), 0)
    verified = node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def test_listeners_load_no_codec(node: CrashNode) -> None:
    for pid in node.pids("intake"):
        loaded = Path(f"/proc/{pid}/maps").read_text()
        assert "cryptography" in loaded
        assert re.findall(r"/\S*(?:numpy|gdcm|openjpeg|jpeg|/PIL/|/rle)\S*", loaded) == []


def test_each_listener_drains_at_sigterm(node: CrashNode) -> None:
    [first, second] = node.pids("intake")
    assert node.stop() == 0
    assert len(node.events("draining")) == 2
    assert len(node.events("stopped", "intake")) == 2
    assert not {first, second} & set(node.pids())
    assert not list((node.folder / "run").glob("*.sock"))
