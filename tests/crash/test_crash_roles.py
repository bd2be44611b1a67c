"""kill -9 of one role at a time, or of the supervisor alone: restarted, leases back at once, nothing lost or twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from support import films
from support.crash import CrashNode, Ledger, alive, assert_one_report_each, children, report_counts, tree, zombies
from support.node import Orthanc, free_port, wait_for

from radnode.supervisor import ORDER


@dataclass
class Site:
    """One node, its PACS, and every image that was ever promised."""

    node: CrashNode
    pacs: Orthanc
    promised: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site that every test of this module leaves sound."""
    folder = tmp_path_factory.mktemp("roles")
    port = free_port()
    with (
        CrashNode(folder / "node", pacs_port=port) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.start()
        yield Site(node, pacs)


def slices(count: int) -> list[Dataset]:
    return [films.fresh(films.CT[number % len(films.CT)]) for number in range(count)]


def settle(site: Site, *ledgers: Ledger) -> None:
    """Every image ever promised has one report at the PACS, every role runs, nothing is left over."""
    node = site.node
    for ledger in ledgers:
        site.promised |= ledger.promised
    node.await_idle(120)
    wait_for(lambda: report_counts(site.pacs) >= len(site.promised), 10, "every report is at the PACS")
    assert_one_report_each(site.pacs, site.promised)
    wait_for(lambda: all(node.pid(role) for role in ORDER), 40, "all roles run")
    wait_for(lambda: not zombies(node.supervisor), 5, "the dead are buried")
    wait_for(lambda: node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    node.assert_sound()


def test_worker_killed_in_a_batch_is_restarted_and_its_leases_come_back_at_once(site: Site) -> None:
    node = site.node
    ledger = Ledger(node, slices(24))
    pusher = threading.Thread(target=ledger.push, args=(60,))
    pusher.start()
    wait_for(lambda: node.jobs()["analyse", "leased"], 20, "the worker is in the middle of a batch")
    pid = node.kill_role("worker")
    died = wait_for(lambda: [line for line in node.events("role_died") if line["pid"] == pid], 5, "it is noticed")[-1]
    assert died["rule"] == "worker"
    assert died["exit"] == -signal.SIGKILL
    assert died["leases"] >= 1  # its leases, given back in the same moment
    assert node.jobs()["analyse", "leased"] == 0
    pusher.join()
    settle(site, ledger)
    assert all(attempts <= 2 for (attempts,) in node.query("SELECT attempts FROM jobs WHERE kind = 'analyse'"))


def test_deliver_killed_while_sending_sends_again_and_the_pacs_sees_no_twin(site: Site) -> None:
    node, pacs = site.node, site.pacs._process
    assert pacs is not None
    ledger = Ledger(node, slices(24))
    before = report_counts(site.pacs)
    pusher = threading.Thread(target=ledger.push, args=(60,))
    pusher.start()
    wait_for(lambda: report_counts(site.pacs) >= before + 3, 20, "reports flow")
    os.kill(pacs.pid, signal.SIGSTOP)  # what is sent now it will store, and its answer will reach nobody
    try:
        wait_for(lambda: node.jobs()["deliver", "leased"], 20, "deliver is in the middle of sending")
        time.sleep(0.5)
        pid = node.kill_role("deliver")
    finally:
        os.kill(pacs.pid, signal.SIGCONT)
    wait_for(lambda: [line for line in node.events("role_died") if line["pid"] == pid], 5, "it is noticed")
    pusher.join()
    settle(site, ledger)


def test_sequencer_killed_leaves_the_trail_without_gap_or_repeat(site: Site) -> None:
    node = site.node
    ledger = Ledger(node, slices(24), pause=0.05)
    pusher = threading.Thread(target=ledger.push, args=(60,))
    pusher.start()
    for _ in range(3):
        wait_for(lambda: node.left()["audit rows not in the trail"] < 5, 20, "the trail keeps up")
        node.kill_role("sequencer")
    pusher.join()
    settle(site, ledger)
    rows = node.query("SELECT max(seq) FROM audit_entries")[0][0]
    assert [entry["seq"] for entry in node.trail()][:rows] == list(range(1, rows + 1))


def test_intake_killed_in_a_push_listens_again_and_keeps_its_promises(site: Site) -> None:
    node = site.node
    ledger = Ledger(node, slices(40), pause=0.05)
    pusher = threading.Thread(target=ledger.push, args=(60,))
    pusher.start()
    for enough in (8, 20):
        wait_for(lambda enough=enough: len(ledger.promised) >= enough, 30, "the push goes on")
        node.kill_listeners()
    pusher.join()
    assert ledger.unanswered >= 2
    assert len(ledger.promised) == 40
    settle(site, ledger)


def test_supervisor_killed_alone_takes_its_children_along_and_a_new_one_goes_on(site: Site) -> None:
    node = site.node
    ledger = Ledger(node, slices(30), pause=0.02)
    pusher = threading.Thread(target=ledger.push, args=(90,))
    pusher.start()
    wait_for(lambda: len(ledger.promised) >= 10, 30, "the push goes on")
    below, before = tree(node.supervisor)[1:], len(node.log())
    assert len(below) >= 5  # four roles and the decoder
    node.kill_supervisor()
    killed = datetime.now(UTC)
    node.start()  # at once: it waits for the locks of those that still drain
    assert not any(map(alive, below))
    pusher.join()
    assert len(ledger.promised) == 30
    settle(site, ledger)
    ends = {line["role"]: line["timestamp"] for line in node.log()[before:] if line["event"] == "stopped"}
    assert set(ends) == set(ORDER)  # each drained; none was cut off at the deadline
    assert max(datetime.fromisoformat(end) - killed for end in ends.values()) < timedelta(seconds=10)
    assert not node.events("role_failed")


def test_decoder_killed_while_it_decodes_costs_that_image_alone_and_never_the_worker(site: Site) -> None:
    node = site.node
    worker = node.pid("worker")
    assert worker is not None
    [decoder] = [
        pid for pid in children(worker) if b"radnode.detect.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(decoder, signal.SIGSTOP)  # it takes the film and stands still over it
    ledger = Ledger(node, [films.fresh(films.NORMAL)])
    ledger.push(20)
    wait_for(lambda: node.jobs()["analyse", "leased"], 10, "the film is at the decoder")
    time.sleep(0.3)
    os.kill(decoder, signal.SIGKILL)
    settle(site, ledger)
    other = Ledger(node, [films.fresh(films.OPACITY)])
    other.push(20)
    settle(site, other)
    said = {result["source"]["SOPInstanceUID"]: result for result in node.results()}
    [crashed], [seen] = ledger.promised, other.promised
    assert (said[crashed]["outcome"], said[crashed]["reason"]) == ("failed", "decoder_crashed")
    assert said[seen]["outcome"] == "finding"
    assert node.pid("worker") == worker


def test_second_sigterm_changes_nothing_and_the_node_drains_with_exit_0(site: Site) -> None:
    node = site.node
    ledger = Ledger(node, slices(8))
    ledger.push(30)
    below = tree(node.supervisor)[1:]
    os.kill(node.supervisor, signal.SIGTERM)
    time.sleep(0.3)
    os.kill(node.supervisor, signal.SIGTERM)
    assert node.stop() == 0
    assert not any(map(alive, below))
    assert node.jobs()["analyse", "leased"] == 0
    node.start()
    settle(site, ledger)
