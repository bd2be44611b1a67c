"""A full disk, a real one (a small tmpfs): A700, nothing half-written, and all goes on once there is space."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films
from support.crash import SUCCESS, CrashNode, Ledger, assert_one_report_each, report_counts
from support.disk import fill, small_disk
from support.node import Orthanc, free_port, wait_for

from radnode.errors import DestinationUnavailable

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def refusals(ledger: Ledger, count: int) -> list[str]:
    """Send images until `count` were not taken; return what each was answered."""
    said = []
    for number in range(count):
        try:
            said.append(f"{ledger.send(films.fresh(films.CT[number])):04X}")
        except DestinationUnavailable as error:
            said.append(str(error))
    return said


def test_row_23_full_disk_answers_a700_keeps_nothing_half_and_recovers_by_itself(disk: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        CrashNode(disk / "node", pacs_port=port) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.log_path = tmp_path / "node.log"
        node.start()
        worker, supervisor = node.pid("worker"), node.supervisor
        assert worker is not None
        ledger = Ledger(node, [films.fresh(films.NORMAL), films.fresh(films.CT[0])])
        os.kill(worker, signal.SIGSTOP)  # these two are promised, and the disk is full before anybody has analysed them
        ledger.push(30)
        ballast = disk / "ballast"
        fill(ballast)
        os.kill(worker, signal.SIGCONT)
        full = Ledger(node, [])
        said = refusals(full, 4)
        assert all("A700" in answer for answer in said), said
        assert full.promised == set()
        time.sleep(8)  # every role has met the full disk more than once
        assert node.leftovers() == 0
        wait_for(lambda: len(node.sealed()) == 2, 5, "nothing new is kept")
        ballast.unlink()
        wait_for(lambda: ledger.send(films.fresh(films.CT[1])) == SUCCESS, 30, "the node takes images again")
        node.await_idle(60)
        wait_for(lambda: report_counts(pacs) >= 3, 20, "every report is at the PACS")
        assert_one_report_each(pacs, ledger.promised)
        assert sorted(result["outcome"] for result in node.results()) == ["no_finding", *["not_attempted"] * 2]
        assert node.orphans() == set()
        assert node.supervisor == supervisor
        assert node.stop() == 0
        node.assert_sound()
