"""A full disk, a real one (a small tmpfs): A700, nothing half-written, and all goes on once there is space."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films
from support.crash import SUCCESS, CrashNode, Ledger, assert_one_report_each, report_counts
from support.node import Orthanc, free_port, wait_for

from radnode.errors import DestinationUnavailable

OUT_OF_RESOURCES = 0xA700
MEGABYTES = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def refusals(ledger: Ledger, count: int) -> list[str]:
    """Send images until `count` were not taken; return what each was answered."""
    said = []
    for number in range(count):
        try:
            said.append(f"{ledger.send(films.fresh(films.CT[number])):04X}")
        except DestinationUnavailable as error:
            said.append(str(error))
    return said


def test_full_disk_answers_a700_keeps_nothing_half_and_recovers_by_itself(disk: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        CrashNode(disk / "node", pacs_port=port) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.log_path = tmp_path / "node.log"
        node.start()
        before = Ledger(node, [films.fresh(films.CT[0])])
        before.push(30)
        node.await_idle(30)
        supervisor, stored = node.supervisor, node.left()["orphans"]
        ballast = disk / "ballast"
        fill(ballast)
        full = Ledger(node, [])
        said = refusals(full, 4)
        assert all("A700" in answer for answer in said), said
        assert full.promised == set()
        assert node.leftovers() == []
        time.sleep(3)  # every role has met the full disk by now
        ballast.unlink()
        wait_for(lambda: before.send(films.fresh(films.CT[1])) == SUCCESS, 30, "the node takes images again")
        after = Ledger(node, [films.fresh(films.CT[2]), films.fresh(films.NORMAL)])
        after.push(30)
        node.await_idle(60)
        promised = before.promised | after.promised
        wait_for(lambda: report_counts(pacs) >= len(promised), 20, "every report is at the PACS")
        assert_one_report_each(pacs, promised)
        assert node.orphans() == set() or len(node.orphans()) == stored
        assert node.supervisor == supervisor
        assert node.stop() == 0
        node.assert_sound()


def test_image_promised_before_the_disk_filled_is_analysed_once_there_is_space(disk: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        CrashNode(disk / "node", pacs_port=port) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.log_path = tmp_path / "node.log"
        node.start(role="intake", wait=("intake",))
        ledger = Ledger(node, [films.fresh(films.NORMAL), films.fresh(films.CT[0])])
        ledger.push(30)
        assert node.stop() == 0
        node.start()  # the worker wakes up to a disk that fills under it
        ballast = disk / "ballast"
        fill(ballast)
        time.sleep(8)  # several tries of every role
        ballast.unlink()
        node.await_idle(90)
        wait_for(lambda: report_counts(pacs) >= 2, 20, "both reports are at the PACS")
        assert_one_report_each(pacs, ledger.promised)
        assert sorted(result["outcome"] for result in node.results()) == ["no_finding", "not_attempted"]
        assert node.stop() == 0
        node.assert_sound()
