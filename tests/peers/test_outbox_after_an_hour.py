"""A PACS that is away for an hour, by the clock of a serving node, with 300 reports waiting; `scripts/bench outbox` has
5,000 and measures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films
from support.clock import WallClock
from support.crash import CrashNode, Ledger
from support.node import free_port, wait_for

from radnode.configuration import load_settings
from radnode.node import Node

REPORTS = 300
HOUR = 3600.0
SCRIPTS = str(Path(__file__).parents[2] / "scripts")


@pytest.fixture(autouse=True)
def _scripts() -> Iterator[None]:
    sys.path.insert(0, SCRIPTS)
    yield
    sys.path.remove(SCRIPTS)


def test_reports_that_waited_for_an_hour_are_delivered_once_and_images_are_taken_all_the_while(tmp_path: Path) -> None:
    from benchmarks.outbox import fill  # noqa: PLC0415
    from benchmarks.pacs import receiving_pacs  # noqa: PLC0415

    clock, port = WallClock(tmp_path / "clock"), free_port()
    with CrashNode(tmp_path / "node", pacs_port=port, overrides=clock.environment) as node:
        store = Node(load_settings(node.config))
        fill(store, REPORTS)
        store.engine.dispose()
        node.start(role="intake,deliver", wait=("intake", "deliver"))
        wait_for(lambda: node.events("destination_out_of_reach"), 30, "the breaker has opened")
        clock.shift(HOUR)
        [late] = wait_for(lambda: node.events("deliveries_late"), 20, "somebody is told")
        assert late["count"] == REPORTS
        assert late["seconds"] >= HOUR
        assert node.jobs()["deliver", "ready"] + node.jobs()["deliver", "leased"] == REPORTS
        ledger = Ledger(node, [films.fresh(films.CT[number % 16]) for number in range(40)], pause=0.1)
        with receiving_pacs(port, node.folder / "pki") as taken:
            ledger.push(60)  # while the reports go out
            wait_for(lambda: node.jobs()["deliver", "done"] == REPORTS, 120, "every report is delivered")
            found = taken()
        assert len(found) == len(set(found)) == REPORTS
        assert (len(ledger.promised), ledger.sent, ledger.unanswered) == (40, 40, 0)
        assert len(node.events("destination_back")) == len(node.events("deliveries_late")) == 1
        assert node.stop() == 0
        verified = node.run("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
