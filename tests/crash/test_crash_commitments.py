"""kill -9 of the whole node while it promises and gives a modality its storage commitment (PS3.4 Annex J).

Rows C2 to C6 of docs/life-of-an-image.md: what each kill leaves, who repairs it, and that the modality is told in the
end, and of the same request never two different things.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pydicom.uid import generate_uid
from support import films
from support.committing import SUCCESS, Requester
from support.crash import CrashNode, Ledger
from support.failpoints import Failpoints
from support.node import free_port, wait_for

from radnode.model import CommitmentRequest, Reference
from radnode.network.statuses import DUPLICATE_TRANSACTION_UID

SETTINGS = {
    "RADNODE_NETWORK__LISTENERS": "1",
    "RADNODE_DELIVER__RETRY_SECONDS": "0.3",
    "RADNODE_DELIVER__RETRY_MAX_SECONDS": "1",
}
ROLES = "intake,deliver"
# pynetdicom leaves the socket of an association that its peer has cut to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


@dataclass
class Site:
    """A node, and a modality that holds one of its images and asks for it."""

    node: CrashNode
    failpoints: Failpoints
    requester: Requester
    kept: Reference
    told: dict[str, list[frozenset[str]]]  # what it was told, by Transaction UID

    def start(self) -> None:
        self.node.start(role=ROLES, wait=("intake", "deliver"))

    def ask(self, request: CommitmentRequest, answers: list[int | None]) -> threading.Thread:
        """Ask in the background and note the status."""
        asker = threading.Thread(target=lambda: answers.append(self.requester.ask(request)), daemon=True)
        asker.start()
        return asker


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("commitments"), free_port()
    failpoints = Failpoints(folder / "failpoints")
    with CrashNode(folder / "node", overrides=SETTINGS | failpoints.environment) as node:
        may = f'may = ["store", "echo", "commit"]\ncommit = {{ host = "127.0.0.1", port = {port} }}\n'
        text = node.config.read_text()
        assert 'may = ["store", "echo"] ' in text
        node.config.write_text(text.replace('may = ["store", "echo"] ', f"{may}# ", 1))
        film = films.fresh(films.NORMAL)
        told: dict[str, list[frozenset[str]]] = {}

        def hear(transaction: str, committed: frozenset[str], failed: frozenset[str]) -> None:
            assert not failed
            told.setdefault(transaction, []).append(committed)

        with Requester("MODALITY1", node.folder / "pki", "modality", node.port, port, hear) as requester:
            made = Site(node, failpoints, requester, Reference(str(film.SOPClassUID), str(film.SOPInstanceUID)), told)
            made.start()
            Ledger(node, [film]).push(30)
            yield made


# What a kill leaves: the job of answering, objects that no row names, whether the modality had its 0000, its answers.
LEFT = {
    "request-sealed": (None, 1, False, 0),
    "request-kept": ("ready", 0, False, 0),
    "request-judged": ("leased", 0, True, 0),
    "request-answered": ("leased", 0, True, 1),
    "request-closed": ("done", 1, True, 1),
}


@pytest.mark.parametrize("place", LEFT)
def test_kill_while_a_commitment_is_promised_and_given_leaves_what_its_row_says_and_it_is_told(
    site: Site, place: str
) -> None:
    state, orphans, is_promised, told = LEFT[place]
    request = CommitmentRequest(str(generate_uid(prefix=None)), (site.kept,))
    answers: list[int | None] = []
    before = site.node.query("SELECT count(*) FROM jobs WHERE kind = 'commit'")[0][0]
    site.failpoints.arm(place, "STOP")
    asker = site.ask(request, answers)
    wait_for(lambda: site.failpoints.hit(place), 30, f"somebody comes by {place}")
    site.node.kill_everything()
    asker.join(30)
    jobs = site.node.query("SELECT state FROM jobs WHERE kind = 'commit' ORDER BY job")
    assert [row[0] for row in jobs[before:]] == ([state] if state else [])
    assert len(site.node.orphans()) == orphans
    assert (answers == [SUCCESS]) == is_promised
    assert len(site.told.get(request.TransactionUID, [])) == told
    site.start()
    assert site.node.orphans() == set()  # swept
    if not is_promised:  # the same request again, as a modality does that had no answer
        assert site.requester.ask(request) in {SUCCESS, DUPLICATE_TRANSACTION_UID}
    wait_for(lambda: site.told.get(request.TransactionUID), 30, "the modality was told")
    unfinished = "SELECT 1 FROM jobs WHERE kind = 'commit' AND state != 'done'"
    wait_for(lambda: not site.node.query(unfinished), 20, "the job is done")
    assert set(site.told[request.TransactionUID]) == {frozenset([site.kept.SOPInstanceUID])}
    assert len(site.node.query("SELECT 1 FROM jobs WHERE kind = 'commit'")) == before + 1


def test_nothing_is_left_of_all_these_requests_and_the_trail_verifies(site: Site) -> None:
    assert site.node.query("SELECT count(*) FROM commitments WHERE object_id IS NOT NULL") == [(0,)]
    assert site.node.stop() == 0
    assert (site.node.orphans(), site.node.leftovers(), site.node.missing()) == (set(), 0, set())
    verified = site.node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
