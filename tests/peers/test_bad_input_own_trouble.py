"""Row 23 of "Bad input and what it gets" (security.md): trouble of the node's own, each with a real cause.

A full disk is in tests/crash/test_crash_disk.py; here are its low-water mark, the queue's mark, a database that another
process locks, keys that are away, and an audit table that takes nothing. Every time the peer may send again (A700, or
0110 where it could not be audited), nothing is kept by half, and the node recovers by itself.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from support import films
from support.crash import SUCCESS, CrashNode, associate
from support.disk import small_disk
from support.films import file_bytes
from support.node import wait_for

from radnode.errors import DestinationUnavailable

OUT_OF_RESOURCES = "A700"
PROCESSING_FAILURE = "0110"
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CrashNode]:
    with CrashNode(tmp_path / "node") as made:
        made.start(role="intake", wait=("intake",))
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def send(node: CrashNode) -> str:
    """Send an image of a study of its own and return the status, or what went wrong."""
    image = films.fresh(films.CT[0])
    image.StudyInstanceUID = generate_uid()
    with associate(node, [image]) as association:
        try:
            return f"{association.store(file_bytes(image)):04X}"
        except DestinationUnavailable as error:
            return str(error)


def taken(node: CrashNode) -> bool:
    return send(node) == f"{SUCCESS:04X}"


def assert_refused_then_taken(node: CrashNode, status: str, mend: Callable[[], object]) -> None:
    """The trouble is there: two images get that status and leave nothing; once mended, the node takes images again."""
    kept = node.sealed()
    for _ in range(2):
        assert status in send(node)
    assert (node.sealed(), node.leftovers()) == (kept, 0)
    refused = node.events("image_refused")[-2:]
    assert {line["status"] for line in refused} == {status}
    mend()
    wait_for(lambda: taken(node), 15, "the node takes images again")
    assert len(node.sealed()) == len(kept) + 1
    assert node.stop() == 0
    assert_whole(node)


def assert_whole(node: CrashNode) -> None:
    """Nothing is half-written, unnamed or missing, and the trail verifies."""
    assert (node.leftovers(), node.orphans(), node.missing()) == (0, set(), set())
    verified = node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_row_23_database_locked_by_another_process_is_a700(node: CrashNode) -> None:
    assert taken(node)
    command = [sys.executable, "-c", LOCK, str(node.folder / "node.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"

        def mend() -> None:
            other.kill()
            other.wait()

        try:
            assert_refused_then_taken(node, OUT_OF_RESOURCES, mend)
        finally:
            other.kill()


def test_row_23_key_provider_that_is_away_is_a700_and_nothing_is_stored_in_the_clear(node: CrashNode) -> None:
    assert taken(node)
    away = node.folder / "keys-away"
    keys = [path for path in (node.folder / "keys").iterdir() if path.name.startswith("kek-")]
    assert keys
    away.mkdir()
    for path in keys:
        path.rename(away / path.name)

    def mend() -> None:
        for path in keys:
            (away / path.name).rename(path)

    assert_refused_then_taken(node, OUT_OF_RESOURCES, mend)


def test_row_23_audit_table_that_takes_nothing_is_0110_and_the_image_is_not_kept(node: CrashNode) -> None:
    assert taken(node)

    def run(statement: str) -> None:
        with sqlite3.connect(node.folder / "node.db", timeout=20) as connection:
            connection.execute(statement)
        connection.close()

    run("CREATE TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'broken'); END")
    assert_refused_then_taken(node, PROCESSING_FAILURE, lambda: run("DROP TRIGGER broken"))


def test_row_23_disk_below_its_mark_is_a700_before_it_is_full_and_is_told_once(disk: Path, tmp_path: Path) -> None:
    overrides = {"RADNODE_STORAGE__LOW_DISK_PERCENT": "30"}
    with CrashNode(disk / "node", overrides=overrides) as node:
        node.log_path = tmp_path / "node.log"
        node.start(role="intake", wait=("intake",))
        assert taken(node)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - (4 << 20)))  # of 24 MB: not full
        wait_for(lambda: node.events("refusing_images"), 10, "the listeners see it")
        wait_for(lambda: OUT_OF_RESOURCES in send(node), 5, "every listener refuses")
        check = node.run("check")
        assert "BAD  holds: Images are refused, because the disk is nearly full" in check.stdout

        def mend() -> None:
            ballast.unlink()

        assert_refused_then_taken(node, OUT_OF_RESOURCES, mend)
        assert_told_once(node, "disk_low")


def test_row_23_queue_beyond_its_mark_is_a700_until_the_work_is_done(tmp_path: Path) -> None:
    overrides = {"RADNODE_QUEUE__MAX_WAITING": "3"}
    with CrashNode(tmp_path / "node", overrides=overrides) as node:
        node.start(role="intake", wait=("intake",))
        for _ in range(4):
            assert taken(node)
        wait_for(lambda: OUT_OF_RESOURCES in send(node), 10, "every listener refuses")

        def mend() -> None:
            node.stop()
            node.start()  # with a worker, which does the work

        kept = len(node.sealed())
        mend()
        node.await_idle(60)
        wait_for(lambda: taken(node), 15, "the node takes images again")
        assert len(node.sealed()) > kept
        node.await_idle(60)
        assert node.stop() == 0
        assert_whole(node)
        assert_told_once(node, "queue_full")


def assert_told_once(node: CrashNode, rule: str) -> None:
    """One line and one audit entry at each change."""
    told = [line["event"] for line in node.log() if line["event"] in ("refusing_images", "accepting_images")]
    assert told == ["refusing_images", "accepting_images"]
    alerts = [entry["detail"] for entry in node.trail() if entry["event"] == "110113 alert"]
    assert [(alert["change"], alert["rule"]) for alert in alerts] == [(change, rule) for change in told]
