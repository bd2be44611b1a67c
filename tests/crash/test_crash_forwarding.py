"""kill -9 of the whole node between the arrival of an image and its commitment by the archive: it arrives bit for bit.

The places of steps 14 and 15a to 15d of docs/life-of-an-image.md, with an Orthanc that takes storage commitments. The
tests of this module tell one story and run in its order.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from support import films
from support.crash import CrashNode, Ledger
from support.failpoints import Failpoints
from support.node import free_port, wait_for
from support.pacs import TroubledOrthanc

from radnode.errors import StoreUnavailable
from radnode.jobs.write_lock import WriteLock
from radnode.pki import fingerprint

LENGTH = slice(140, 144)  # of the File Meta Information, which is its writer's own (PS3.10 section 7.1)
SETTINGS = {
    "RADNODE_NETWORK__LISTENERS": "1",
    "RADNODE_DELIVER__RETRY_SECONDS": "0.3",
    "RADNODE_DELIVER__RETRY_MAX_SECONDS": "1",
    "RADNODE_DELIVER__TIMEOUT_SECONDS": "5",
    "RADNODE_DELIVER__COMMITMENT_SECONDS": "6",
}
PEER = """
[[peers]]
ae_title = "PACS"
certificate_sha256 = "{fingerprint}"
may = ["echo"]
"""
ROLES = "intake,deliver"


@dataclass
class Site:
    """A node without a worker that forwards each image to its archive."""

    node: CrashNode
    failpoints: Failpoints
    pacs: TroubledOrthanc
    sent: dict[str, bytes] = field(default_factory=dict)

    def start(self) -> None:
        self.node.start(role=ROLES, wait=("intake", "deliver"))

    def push(self) -> threading.Thread:
        """Send a fresh film until it is acknowledged."""
        film = films.fresh(films.OPACITY)
        self.sent[str(film.SOPInstanceUID)] = data_set(films.file_bytes(film))
        pusher = threading.Thread(target=Ledger(self.node, [film]).push, args=(60,), daemon=True)
        pusher.start()
        return pusher

    @contextmanager
    def frozen(self, role: str) -> Iterator[None]:
        """The process of a role stands still, unless it was killed meanwhile."""
        pid = self.freeze(role)
        yield
        if self.node.pid(role) == pid:
            os.kill(pid, signal.SIGCONT)

    def freeze(self, role: str) -> int:
        """Let a process stand still while it keeps nobody from writing; return its number."""
        pid = self.node.pid(role)
        assert pid is not None
        turn = WriteLock(self.node.folder / "node.db.lock")
        for _ in range(100):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02)
            try:
                turn.acquire(0.5)
            except StoreUnavailable:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
            else:
                turn.release()
                return int(pid)
        raise AssertionError(f"{role} writes without end")

    def forward(self) -> tuple[str, int | None, bool]:
        """State of the newest job, how often its image was asked for (None: it was not sent), and in a transaction."""
        [(state, subject)] = self.node.query(
            "SELECT state, subject FROM jobs WHERE kind = 'forward' ORDER BY job DESC LIMIT 1"
        )
        query = f"SELECT asks, transaction_id IS NOT NULL FROM sendings WHERE subject = '{subject}'"  # noqa: S608
        return (str(state), *(self.node.query(query) or [(None, False)])[0])

    def await_delivered(self) -> None:
        """Return when the archive has committed everything."""
        wait_for(lambda: self.node.jobs()["forward", "done"] == len(self.sent), 60, "all is committed")
        assert not self.node.query("SELECT 1 FROM sendings")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("forwarding"), free_port()
    failpoints = Failpoints(folder / "failpoints")
    overrides = SETTINGS | failpoints.environment
    with CrashNode(folder / "node", pacs_port=port, overrides=overrides) as node:
        text = node.config.read_text().replace("\ncommitment = false", "\ncommitment = true ")
        text = text.replace('detect = ["cxr-opacity"]', "detect = []").replace("forward = []", 'forward = ["pacs"]')
        certificate = fingerprint(node.folder / "pki" / "pacs.crt")
        node.config.write_text(text + PEER.format(fingerprint=certificate))
        with TroubledOrthanc(folder / "pacs", port, node.folder / "pki", node.port) as pacs:
            made = Site(node, failpoints, pacs)
            made.start()
            yield made


def data_set(part10: bytes) -> bytes:
    """Return what comes after the File Meta Information."""
    return part10[LENGTH.stop + int.from_bytes(part10[LENGTH], "little") :]


def kill_at(site: Site, place: str) -> None:
    """Send an image, and kill everything while a process stands at a place."""
    site.failpoints.arm(place, "STOP")
    site.push()
    wait_for(lambda: site.failpoints.hit(place), 30, f"somebody comes by {place}")
    site.node.kill_everything()


# What a kill leaves of the newest image: its job, how often it was asked for, whether in a transaction; at the archive.
UNHEARD = {
    "image-committed": (("ready", None, False), 0),
    "delivery-leased": (("leased", None, False), 0),
    "report-sent": (("leased", None, False), 1),
    "object-promised": (("leased", 0, False), 1),
    "transaction-named": (("leased", 0, True), 1),
    "commitment-asked": (("leased", 0, True), 1),
    "ask-counted": (("leased", 1, True), 1),
    "asked-given-back": (("ready", 1, True), 1),
}
HEARD = {
    "answer-uncommitted": ("ready", 1, True),
    "answer-committed": ("done", None, False),
}


@pytest.mark.parametrize("place", UNHEARD)
def test_kill_between_arrival_and_commitment_leaves_what_its_row_says_and_the_image_arrives(
    site: Site, place: str
) -> None:
    left, new = UNHEARD[place]
    before = site.pacs.instance_count()
    if place == "image-committed":
        with site.frozen("deliver"):
            kill_at(site, place)
    else:
        with site.frozen("deliver"):
            site.push().join()
            site.failpoints.arm(place, "STOP")
            site.freeze("intake")  # the archive's answer reaches nobody
        wait_for(lambda: site.failpoints.hit(place), 30, f"somebody comes by {place}")
        site.node.kill_everything()
    assert site.forward() == left
    assert site.pacs.instance_count() == before + new
    site.start()
    site.await_delivered()
    assert site.pacs.instance_count() == before + 1


@pytest.mark.parametrize("place", HEARD)
def test_kill_while_the_answer_is_written_down_leaves_what_its_row_says(site: Site, place: str) -> None:
    kill_at(site, place)
    assert site.forward() == HEARD[place]
    site.start()
    site.await_delivered()


def test_every_image_is_at_the_archive_once_bit_for_bit_and_the_node_is_sound(site: Site) -> None:
    site.await_delivered()
    found = Counter(site.pacs.get(f"/instances/{name}")["MainDicomTags"]["SOPInstanceUID"] for name in names(site))
    assert found == dict.fromkeys(site.sent, 1)
    for name in names(site):
        uid = site.pacs.get(f"/instances/{name}")["MainDicomTags"]["SOPInstanceUID"]
        assert data_set(site.pacs.get_bytes(f"/instances/{name}/file")) == site.sent[uid]
    assert site.node.jobs() == {("forward", "done"): len(site.sent)}
    assert site.node.stop() == 0
    assert (site.node.orphans(), site.node.leftovers(), site.node.missing()) == (set(), 0, set())
    assert site.node.run("audit", "verify").returncode == 0


def names(site: Site) -> list[str]:
    found: list[str] = site.pacs.get("/instances")
    return found
