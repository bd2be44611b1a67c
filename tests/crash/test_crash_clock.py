"""Row 26 of "Bad input and what it gets" (security.md): the clock jumps back an hour under a node at work."""

from __future__ import annotations

import itertools
import os
import signal
import time
from datetime import datetime
from pathlib import Path

from support import films
from support.clock import WallClock
from support.crash import CrashNode, Ledger, assert_one_report_each, report_counts
from support.node import Orthanc, free_port, wait_for

HOUR = 3600.0


def stop_with_a_lease(node: CrashNode, worker: int, ledger: Ledger) -> None:
    """Send images until the worker stands still with one in its hands."""
    for _ in range(10):
        ledger.images.append(films.fresh(films.NORMAL))
        ledger.send(ledger.images[-1])
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and not node.idle():
            os.kill(worker, signal.SIGSTOP)
            if node.jobs()["analyse", "leased"]:
                return
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.005)
    raise AssertionError("the worker is always quicker")


def test_row_26_clock_that_jumps_back_an_hour_loses_no_lease_and_doubles_none_and_the_trail_keeps_its_order(
    tmp_path: Path,
) -> None:
    clock, port = WallClock(tmp_path / "clock"), free_port()
    with (
        CrashNode(tmp_path / "node", pacs_port=port, overrides=clock.environment) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.start()
        worker = node.pid("worker")
        assert worker is not None
        ledger = Ledger(node, [])
        stop_with_a_lease(node, worker, ledger)
        for _ in range(3):  # these wait, dated in what will be the future
            ledger.images.append(films.fresh(films.CT[0]))
            ledger.send(ledger.images[-1])
        clock.shift(-HOUR)
        for _ in range(2):
            ledger.images.append(films.fresh(films.CT[1]))
            ledger.send(ledger.images[-1])
        assert len(ledger.promised) == len(ledger.images)
        os.kill(worker, signal.SIGCONT)
        node.await_idle(60)  # none waits for the hour to pass again
        wait_for(lambda: report_counts(pacs) >= len(ledger.promised), 20, "every report is at the PACS")
        assert_one_report_each(pacs, ledger.promised)
        assert node.query("SELECT max(attempts) FROM jobs WHERE kind = 'analyse'") == [(1,)]
        assert not node.events("lease_lost")
        assert node.stop() == 0
        node.assert_sound()
        trail = node.trail()
        assert [entry["seq"] for entry in trail] == list(range(1, len(trail) + 1))
        times = [datetime.fromisoformat(entry["timestamp"]) for entry in trail]
        steps = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
        assert min(steps) < -HOUR / 2  # the trail says what the clock said, in the order in which it happened
