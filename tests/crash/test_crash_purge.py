"""kill -9 in the middle of a purge, with images of that very study arriving: what was promised after it is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from pydicom.uid import generate_uid
from support import films
from support.crash import CrashNode, Ledger
from support.failpoints import Failpoints
from support.node import wait_for

from radnode.configuration import load_settings
from radnode.node import Node

IMAGES = 60


def purge(node: CrashNode, study: str, environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "radnode", "purge", "--study", study, "-c", str(node.config)]
    return subprocess.run(command, env={**os.environ, **environment}, timeout=60, check=False).returncode


def test_purge_that_is_killed_while_its_study_arrives_loses_nothing_else(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path / "armed")
    with CrashNode(tmp_path / "node") as node:
        node.start(role="intake", wait=("intake",))
        study, other = generate_uid(prefix=None), generate_uid(prefix=None)
        images = [films.fresh(films.CT[0], StudyInstanceUID=(study, other)[number % 2]) for number in range(IMAGES)]
        ledger = Ledger(node, images, pause=0.4)  # slow enough for three processes to start
        client = threading.Thread(target=push, args=(ledger,))
        client.start()
        for place in ("study-purged", "objects-removed"):
            wait_for(lambda: node.query(_COUNT)[0][0] >= 4, 60, "the push runs")
            failpoints.arm(place)
            assert purge(node, study, failpoints.environment) == -9
            assert node.query("SELECT count(*) FROM doomed_objects")[0][0] > 0
        node.kill_everything()
        node.start(role="intake", wait=("intake",))
        assert len(ledger.promised) < IMAGES, "the purge is to meet the push"
        wait_for(lambda: node.query(_COUNT)[0][0] >= 4, 60, "the push goes on")
        assert purge(node, study, {}) == 0
        ledger.pause = 0.01
        client.join()
        assert node.stop() == 0
        reader = Node(load_settings(node.config))
        kept = node.query("SELECT instance, object_id FROM instances")
        assert all(reader.vault.get(object_id) for _, object_id in kept)
        others = {reader.pseudonyms.instance(str(image.SOPInstanceUID)) for image in images[1::2]}
        assert others <= {instance for instance, _ in kept}, "what is not of the study is not purged"
        reader.engine.dispose()
        assert node.query("SELECT count(*) FROM doomed_objects") == [(0,)]
        assert (node.orphans(), node.missing(), node.leftovers()) == (set(), set(), 0)
        purged = [entry for entry in node.trail() if entry["event"].endswith("study_purged")]
        assert len(purged) == 2  # the second one died while it gave back the room of the first
        verified = node.run("audit", "verify")
        assert verified.returncode == 0, verified.stdout


def push(ledger: Ledger) -> None:
    """Send every image until it is answered 0000; A700, of a study that is purged at this moment, is sent again."""
    while ledger.images:
        ledger.push(120)
        ledger.images = [image for image in ledger.images if str(image.SOPInstanceUID) not in ledger.promised]


_COUNT = "SELECT count(*) FROM instances"
