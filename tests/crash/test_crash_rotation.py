"""kill -9 in the middle of a rotation, with a push running: every object opens before, during and after."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from pydicom.uid import generate_uid
from support import films
from support.crash import CrashNode, Ledger
from support.failpoints import Failpoints
from support.node import wait_for

from radnode.configuration import load_settings
from radnode.node import Node
from radnode.storage.sealing import Kind

STUDIES = 120  # of which a rotation wraps 50 a commit
IMAGES = 60


def opens_all(node: CrashNode) -> int:
    """Open every object that the index names, as a process that has nothing in memory; return how many."""
    reader = Node(load_settings(node.config))
    rows = node.query("SELECT object_id FROM instances")
    for (object_id,) in rows:
        assert reader.vault.get(object_id)
    reader.engine.dispose()
    return len(rows)


def wrapped_under(node: CrashNode) -> Counter[str]:
    return Counter(kek for (kek,) in node.query("SELECT kek_id FROM study_keys"))


def rotate(node: CrashNode, failpoints: Failpoints) -> int:
    """Rotate in a process that meets the failpoints; return how it ended."""
    command = [sys.executable, "-m", "radnode", "keys", "rotate", "-c", str(node.config)]
    return subprocess.run(command, env={**os.environ, **failpoints.environment}, timeout=60, check=False).returncode


def test_rotation_under_load_that_is_killed_loses_no_object_and_is_finished(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path / "armed")
    with CrashNode(tmp_path / "node") as node:
        others = Node(load_settings(node.config))
        known = {others.vault.put(f"{number:032x}", Kind.RESULT, b"%d" % number): number for number in range(STUDIES)}
        node.start(role="intake", wait=("intake",))
        studies = [generate_uid(prefix=None) for _ in range(IMAGES // 3)]
        images = [films.fresh(films.CT[0], StudyInstanceUID=studies[number // 3]) for number in range(IMAGES)]
        ledger = Ledger(node, images, pause=0.5)  # slow enough for three processes to start
        client = threading.Thread(target=ledger.push, args=(120,))
        client.start()
        wait_for(lambda: len(ledger.promised) >= 5, 60, "the push runs")
        for place in ("rotation-begun", "keys-rewrapped"):
            failpoints.arm(place)
            assert rotate(node, failpoints) == -9
            assert opens_all(node) >= 5
        between = wrapped_under(node)
        assert between["kek-0001"] > 0 and between["kek-0002"] >= 50
        node.kill_everything()
        assert opens_all(node) >= len(ledger.promised)
        node.start(role="intake", wait=("intake",))
        assert len(ledger.promised) < IMAGES, "the rotation is to meet the push"
        assert rotate(node, failpoints) == 0
        ledger.pause = 0.01
        assert set(wrapped_under(node)) == {"kek-0002"}  # no third key, and none left behind
        retired = node.run("keys", "retire", "kek-0001")
        assert retired.returncode == 0, retired.stderr
        client.join()
        assert len(ledger.promised) == IMAGES == opens_all(node)
        fresh = Node(load_settings(node.config))
        assert all(fresh.vault.get(object_id) == b"%d" % number for object_id, number in known.items())
        assert node.stop() == 0
        assert [line for line in node.log() if line["event"] == "image_refused"] == []
        changes = [entry["detail"]["change"] for entry in node.trail() if entry["event"].endswith("key_changed")]
        assert changes == ["rotated", "rewrapping", "rewrapping", "rewrapped", "retired"]
        for one in (others, fresh):
            one.engine.dispose()
