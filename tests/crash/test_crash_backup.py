"""A backup of a node that receives meanwhile, and is killed after: what was promised before the backup is all there."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from pydicom.uid import generate_uid
from support import films
from support.crash import CrashNode, Ledger
from support.node import radnode, wait_for

from radnode.configuration import load_settings
from radnode.node import Node

IMAGES = 60


def test_backup_under_load_restores_all_that_was_promised_before_it(tmp_path: Path) -> None:
    with CrashNode(tmp_path / "node") as node:
        node.start(role="intake", wait=("intake",))
        studies = [generate_uid(prefix=None) for _ in range(6)]
        images = [films.fresh(films.CT[0], StudyInstanceUID=studies[number % 6]) for number in range(IMAGES)]
        ledger = Ledger(node, images, pause=0.1)
        client = threading.Thread(target=ledger.push, args=(120,))
        client.start()
        wait_for(lambda: len(ledger.promised) >= 10, 60, "the push runs")
        promised = set(ledger.promised)
        made = node.run("backup", tmp_path / "backup", "--keys", tmp_path / "study-keys")
        assert made.returncode == 0, made.stderr
        assert len(ledger.promised) < IMAGES, "the backup is to meet the push"
        ledger.pause = 0.0
        client.join()
        node.kill_everything()
        fresh = tmp_path / "fresh"
        shutil.copytree(node.folder, fresh, ignore=shutil.ignore_patterns("node.db*", "objects", "audit", "run"))
        config = ("-c", fresh / "radnode.toml")
        restored = radnode("restore", tmp_path / "backup", "--keys", tmp_path / "study-keys", *config)
        assert restored.returncode == 0, restored.stderr
        reader = Node(load_settings(fresh / "radnode.toml"))
        with reader.engine.connect() as tx:
            kept = set(tx.exec_driver_sql("SELECT instance FROM instances").scalars())
        assert {reader.pseudonyms.instance(uid) for uid in promised} <= kept
        reader.engine.dispose()
        assert radnode("audit", "verify", *config).returncode == 0
