"""A node that is killed at the steps of docs/life-of-an-image.md, and the rows of that page.

A process freezes itself at a failpoint of the step, the whole node is killed, what is left is counted, and the next
start says how much of it was put right. The end of each site is the balance: one report for each image.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from support.crash import CrashNode, Ledger, assert_one_report_each, report_counts
from support.failpoints import Failpoints
from support.node import Orthanc, free_port, wait_for

# Rows 3 to 8: what is new after the kill (instances, objects that no row names), and whether the modality was answered.
ARRIVING = {
    "data-arrives": (0, 0, False),
    "image-identified": (0, 0, False),
    "study-key-made": (0, 0, False),
    "object-begun": (0, 0, False),
    "object-written": (0, 1, False),
    "object-durable": (0, 1, False),
    "arrival-uncommitted": (0, 1, False),
    "image-committed": (1, 0, False),
    "image-answered": (1, 0, True),
}

# Rows 9 to 15: the job that is left in a lease, objects that no row names, new results.
WORKED_ON = {
    "analysis-leased": ("analyse", 0, 0),
    "images-decoded": ("analyse", 0, 0),
    "image-detected": ("analyse", 0, 0),
    "report-composed": ("analyse", 0, 0),
    "findings-sealed": ("analyse", 1, 0),
    "result-sealed": ("analyse", 3, 0),  # findings, report, picture
    "result-uncommitted": ("analyse", 3, 0),
    "result-committed": (None, 0, 1),
    "delivery-leased": ("deliver", 0, 1),
    "report-sent": ("deliver", 0, 1),
    "delivery-uncommitted": ("deliver", 0, 1),
    "delivery-committed": (None, 0, 1),
}


@dataclass
class Crash:
    """One kill of everything: what there was before, what it left, and what the next start put right."""

    before: dict[str, int]
    left: dict[str, int]
    promised: bool  # whether the modality had its 0000
    at_pacs: int
    repaired: dict[str, Any]

    def new(self, what: str) -> int:
        """How many more of something there were after the kill."""
        return self.left.get(what, 0) - self.before.get(what, 0)


@dataclass
class Site:
    """A node that looks at failpoints, its PACS, and what was sent."""

    node: CrashNode
    failpoints: Failpoints
    pacs: Orthanc
    roles: str
    ledgers: list[Ledger] = field(default_factory=list)

    def start(self) -> None:
        wait = ("intake", "worker") if self.roles == "all" else ("intake",)
        self.node.start(role=self.roles, wait=wait)

    def push(self, image: Dataset) -> threading.Thread:
        """Send an image until it is acknowledged, however often that takes."""
        self.ledgers.append(Ledger(self.node, [image]))
        pusher = threading.Thread(target=self.ledgers[-1].push, args=(60,), daemon=True)
        pusher.start()
        return pusher

    def crash(self, place: str, image: Dataset) -> Crash:
        """Kill all while a process stands at a place, start again, and wait until the image is acknowledged."""
        before = self.left()
        self.failpoints.arm(place, "STOP")
        pusher = self.push(image)
        wait_for(lambda: self.failpoints.hit(place), 30, f"somebody comes by {place}")
        self.node.kill_everything()
        promised, left, at_pacs = self.ledgers[-1].promised, self.left(), report_counts(self.pacs)
        crash = Crash(before, left, str(image.SOPInstanceUID) in promised, at_pacs, self.restart())
        pusher.join()
        return crash

    def left(self) -> dict[str, int]:
        """What a kill left: rows and what the bystander finds."""
        tables = ("instances", "results", "study_keys")
        rows = {table: self.node.query(f"SELECT count(*) FROM {table}")[0][0] for table in tables}  # noqa: S608
        return rows | {"checkpoints behind": self.unsigned()} | self.node.left()

    def unsigned(self) -> int:
        """How many entries of the trail stand after the newest checkpoint."""
        [*_, newest] = sorted((self.node.folder / "audit" / "checkpoints").glob("*.notes"))
        sizes = re.findall(r"(?m)^radnode/audit\n(\d+)$", newest.read_text())
        return len(self.node.trail()) - int(sizes[-1])

    def restart(self) -> dict[str, Any]:
        """Start again and return what was repaired."""
        before = len(self.node.events("start_repaired"))
        self.start()
        said = self.node.events("start_repaired")[before:]
        assert len(said) <= 1  # one line
        return said[0] if said else {"leases": 0, "stretches": 0, "entries": 0}

    def settle(self) -> None:
        """Every image that was sent is promised, has one report, and the node is sound."""
        promised = {uid for ledger in self.ledgers for uid in ledger.promised}
        assert len(promised) == len(self.ledgers)
        self.node.await_idle(90)
        wait_for(lambda: report_counts(self.pacs) >= len(promised), 20, "every report is at the PACS")
        assert_one_report_each(self.pacs, promised)
        assert self.node.stop() == 0
        self.node.assert_sound()


def site(folder: Path, roles: str) -> Iterator[Site]:
    """Serve these roles, with a PACS beside them."""
    port = free_port()
    failpoints = Failpoints(folder / "failpoints")
    with (
        CrashNode(folder / "node", pacs_port=port, overrides=failpoints.environment) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        made = Site(node, failpoints, pacs, roles)
        made.start()
        yield made
