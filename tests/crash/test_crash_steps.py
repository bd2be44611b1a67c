"""Every row of docs/life-of-an-image.md: kill -9 of everything just there leaves what the row says, and it is mended.

A process freezes itself at a failpoint of the step, the whole node is killed, what is left is counted, and the next
start says how much of it was put right. The end of each module's site is the balance: one report for each image.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from support import films
from support.crash import CrashNode, Ledger, assert_one_report_each, report_counts
from support.failpoints import Failpoints
from support.node import Orthanc, free_port, wait_for

from radnode.failpoints import PLACES


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
    port = free_port()
    failpoints = Failpoints(folder / "failpoints")
    with (
        CrashNode(folder / "node", pacs_port=port, overrides=failpoints.environment) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        made = Site(node, failpoints, pacs, roles)
        made.start()
        yield made


@pytest.fixture(scope="module")
def arriving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Where images arrive and nobody analyses them."""
    yield from site(tmp_path_factory.mktemp("arriving"), "intake")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A whole node."""
    yield from site(tmp_path_factory.mktemp("whole"), "all")


def large() -> Dataset:
    """A film whose object goes to the disk in more than one write."""
    film = films.fresh(films.NORMAL)
    pixels = film.pixel_array.repeat(2, axis=0).repeat(2, axis=1)
    film.Rows, film.Columns = pixels.shape
    film.PixelData = np.ascontiguousarray(pixels).tobytes()
    return film


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


@pytest.mark.parametrize("place", ARRIVING)
def test_kill_while_an_image_arrives_leaves_what_its_row_says(arriving: Site, place: str) -> None:
    instances, orphans, is_promised = ARRIVING[place]
    half = place == "object-begun"
    crash = arriving.crash(place, large() if half else films.fresh(films.NORMAL))
    assert crash.new("instances") == crash.new("analyse ready") == instances
    assert crash.new("study_keys") == (PLACES[place] >= 5)
    assert crash.left["orphans"] == orphans
    assert (crash.left["half-written bytes"] > 0) == half
    assert crash.promised == is_promised
    assert arriving.ledgers[-1].sent == (1 if is_promised else 2)
    assert crash.repaired["stretches"] == (1 if orphans or half else 0)
    assert (arriving.node.orphans(), arriving.node.leftovers()) == (set(), 0)


def test_kill_while_a_duplicate_is_compared_leaves_one_object_too_many(arriving: Site) -> None:
    image = films.fresh(films.NORMAL)
    arriving.push(image).join()
    first = arriving.ledgers.pop()
    crash = arriving.crash("duplicate-compared", image)
    assert not crash.promised
    assert crash.new("instances") == crash.new("analyse ready") == 0
    assert crash.left["orphans"] == crash.repaired["stretches"] == 1
    assert first.promised == arriving.ledgers[-1].promised
    assert (arriving.node.orphans(), arriving.node.leftovers()) == (set(), 0)


def test_every_image_that_arrived_between_the_kills_has_one_report_in_the_end(arriving: Site) -> None:
    assert arriving.node.stop() == 0
    arriving.roles = "all"
    arriving.start()
    arriving.settle()


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


@pytest.mark.parametrize("place", WORKED_ON)
def test_kill_while_an_image_is_worked_on_leaves_what_its_row_says(whole: Site, place: str) -> None:
    leased, orphans, results = WORKED_ON[place]
    whole.node.await_idle(60)
    at_pacs = report_counts(whole.pacs)
    crash = whole.crash(place, films.fresh(films.NORMAL))
    assert crash.promised
    assert [kind for kind in ("analyse", "deliver") if crash.left.get(f"{kind} leased")] == ([leased] if leased else [])
    assert crash.left["orphans"] == orphans
    assert crash.new("results") == results
    assert crash.at_pacs == at_pacs + (place in {"report-sent", "delivery-uncommitted", "delivery-committed"})
    assert crash.repaired["leases"] == {"analyse": 1, "deliver": 2, None: 0}[leased]  # report and picture go together
    assert (crash.repaired["stretches"] > 0) == (orphans > 0)


@pytest.mark.parametrize("place", ["trail-appended", "trail-signed"])
def test_kill_of_the_sequencer_leaves_a_trail_that_goes_on(whole: Site, place: str) -> None:
    whole.node.await_idle(60)
    crash = whole.crash(place, films.fresh(films.NORMAL))
    assert (crash.left["checkpoints behind"] == 0) == (place == "trail-signed")
    assert crash.repaired["entries"] == crash.left["audit rows not in the trail"]


def test_last_line_of_the_trail_that_was_cut_short_is_counted_and_written_anew(whole: Site) -> None:
    whole.node.await_idle(60)
    wait_for(lambda: whole.node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    whole.node.kill_everything()
    [*_, newest] = sorted((whole.node.folder / "audit").glob("*.jsonl"))
    whole_lines = newest.read_bytes()
    newest.write_bytes(whole_lines + b'{"seq":99999,"timest')  # what a power cut leaves of an append
    assert whole.restart()["torn_bytes"] == 20
    wait_for(lambda: whole.node.events("ready", "sequencer"), 20, "the sequencer runs")
    wait_for(lambda: whole.node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    assert newest.read_bytes().startswith(whole_lines)


def test_kill_of_a_start_that_repairs_leaves_the_rest_to_the_next(whole: Site) -> None:
    whole.node.await_idle(60)
    whole.failpoints.arm("result-sealed", "STOP")
    pusher = whole.push(films.fresh(films.NORMAL))
    wait_for(lambda: whole.failpoints.hit("result-sealed"), 30, "the worker has a result")
    whole.node.kill_everything()
    left = whole.left()
    whole.failpoints.arm("start-repairing")
    whole.node.start(wait=())
    assert whole.node.await_end(30) < 0
    halfway, repaired = whole.left(), whole.restart()
    pusher.join()
    assert (left["analyse leased"], left["orphans"]) == (1, 3)
    assert (halfway.get("analyse leased", 0), halfway["orphans"]) == (0, 3)
    assert (repaired["leases"], repaired["stretches"] > 0) == (0, True)


def test_every_image_that_was_worked_on_between_the_kills_has_one_report_in_the_end(whole: Site) -> None:
    whole.settle()


def test_every_failpoint_is_in_one_of_these_tests() -> None:
    tested = {*ARRIVING, *WORKED_ON, "duplicate-compared", "trail-appended", "trail-signed", "start-repairing"}
    assert tested == set(PLACES)
