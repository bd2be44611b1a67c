"""SIGTERM has one deadline: roles that hang are cut off together; the next start does what they held."""

from __future__ import annotations

import time
from pathlib import Path

from support import films
from support.crash import CrashNode, Ledger, alive, assert_one_report_each, report_counts, tree
from support.failpoints import Failpoints
from support.node import REPORT_ALONE, Orthanc, free_port, wait_for

from radnode.supervisor import GRACE_SECONDS

DRAIN_SECONDS = 2.0


def test_row_27_sigterm_cuts_off_roles_that_hang_at_one_deadline_and_nothing_is_lost(tmp_path: Path) -> None:
    port = free_port()
    failpoints = Failpoints(tmp_path / "failpoints")
    settings = failpoints.environment | REPORT_ALONE | {"RADNODE_NODE__DRAIN_SECONDS": str(DRAIN_SECONDS)}
    with (
        CrashNode(tmp_path / "node", pacs_port=port, overrides=settings) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.start(wait=("intake", "worker", "deliver", "sequencer"))
        failpoints.arm("delivery-leased", "STOP")
        first, second = Ledger(node, [films.fresh(films.NORMAL)]), Ledger(node, [films.fresh(films.OPACITY)])
        first.push(30)
        wait_for(lambda: failpoints.hit("delivery-leased"), 20, "delivery stands still over the first")
        failpoints.arm("images-decoded", "STOP")
        second.push(30)
        wait_for(lambda: failpoints.hit("images-decoded"), 20, "the worker stands still over the second")
        below = tree(node.supervisor)[1:]
        began = time.monotonic()
        assert node.stop() == 0
        took = time.monotonic() - began
        assert not any(map(alive, below))
        assert {line["rule"] for line in node.events("drain_cut_short")} == {"worker", "deliver"}
        one = DRAIN_SECONDS + GRACE_SECONDS
        assert one * 0.9 < took < 2 * one  # two of them, one deadline
        assert node.jobs() == {("analyse", "done"): 1, ("analyse", "leased"): 1, ("deliver", "leased"): 1}
        node.start()
        assert node.events("start_repaired")[-1]["leases"] == 2
        node.await_idle(60)
        wait_for(lambda: report_counts(pacs) >= 2, 10, "both reports are at the PACS")
        assert_one_report_each(pacs, first.promised | second.promised)
        assert node.stop() == 0
        node.assert_sound()


def test_trail_of_a_node_that_stops_while_its_killed_sequencer_waits_ends_with_its_end(tmp_path: Path) -> None:
    with CrashNode(tmp_path / "node") as node:
        node.start(role="deliver", wait=("sequencer",))
        for deaths in range(1, 4):  # the second restart waits for half a second, the third for a whole one
            wait_for(lambda deaths=deaths: len(node.events("ready", "sequencer")) == deaths, 30, "it is back")  # type: ignore[misc]
            node.kill_role("sequencer")
            wait_for(lambda deaths=deaths: len(node.events("role_died")) == deaths, 10, "its death is seen")  # type: ignore[misc]
        assert node.stop() == 0
        assert len(node.events("ready", "sequencer")) == 3
        ended = ["110100 node_stopped", "110113 recording_stopped"]
        assert [entry["event"] for entry in node.trail()[-2:]] == ended
        assert node.left()["audit rows not in the trail"] == 0
        assert node.run("audit", "verify").returncode == 0
