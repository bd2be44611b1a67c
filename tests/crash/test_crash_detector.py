"""Row 24 of "Bad input and what it gets" (security.md): a detector that hangs, dies, raises, answers NaN, is corrupt or
missing: a "failed" report, unharmed neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support import toys
from support.crash import CrashNode, Ledger, report_counts, sources
from support.node import Orthanc, free_port, wait_for

ATTEMPTS = 2
RULE = """
[[rules]]
match = {{ StudyDescription = "{name}" }}
detect = ["{name}"]
deliver = ["pacs"]
"""


@dataclass
class Site:
    """A node with ill-behaved detectors, and its PACS."""

    node: CrashNode
    pacs: Orthanc

    def outcome(self, uid: str) -> tuple[str, str | None]:
        """Return outcome and reason of the newest result about an image."""
        [newest, *_] = [item for item in self.node.results() if item["source"]["SOPInstanceUID"] == uid]
        return newest["outcome"], newest["reason"]

    def reports(self, uid: str) -> int:
        """Return how many reports about an image are at the PACS."""
        return sum(uid in sources(report) for report in self.pacs.reports())

    def dead(self) -> list[dict[str, object]]:
        """Return the dead letters as `radnode jobs list` shows them."""
        rows = json.loads(self.node.run("jobs", "list", "--json").stdout)
        return [row for row in rows if row["state"] == "dead"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("detector")
    port = free_port()
    settings = {"RADNODE_DETECT__TIMEOUT_SECONDS": "3", "RADNODE_DETECT__MAX_ATTEMPTS": str(ATTEMPTS)}
    with (
        CrashNode(folder / "node", pacs_port=port, overrides=settings) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        for name, module in toys.TOYS.items():
            toys.install(node.folder / "models", name, module())
        weights = toys.install(node.folder / "models", "toy-corrupt", toys.Raises()) / "weights.pt2"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        text = node.config.read_text().replace("match = {} ", 'match = { StudyDescription = "cxr" } ')
        names = [*toys.TOYS, "toy-corrupt", "toy-missing"]
        node.config.write_text(text + "".join(RULE.format(name=name) for name in names))
        node.start()
        yield Site(node, pacs)


def push(site: Site, name: str) -> tuple[str, str]:
    """Send a trapped film between two neighbours for the same detector; return the trapped one and a neighbour."""
    films = [toys.film(name), toys.film(name, trapped=True), toys.film(name)]
    before = report_counts(site.pacs)
    ledger = Ledger(site.node, films)
    ledger.push(60)
    assert len(ledger.promised) == 3  # accepted, whatever the detector does
    trapped, neighbour = str(films[1].SOPInstanceUID), str(films[2].SOPInstanceUID)
    site.node.await_idle(120)
    wait_for(lambda: report_counts(site.pacs) >= before + 3, 10, "every image has its report")
    assert [site.reports(str(film.SOPInstanceUID)) for film in films] == [1, 1, 1]
    return trapped, neighbour


def test_row_24_hanging_detector_fails_its_image_after_its_tries_and_harms_no_neighbour(site: Site) -> None:
    dead = len(site.dead())
    trapped, neighbour = push(site, "toy-hangs")
    assert site.outcome(trapped) == ("failed", "too_many_attempts")
    assert site.outcome(neighbour) == ("no_finding", None)
    assert len(site.dead()) == dead + 1
    stuck = site.node.events("detector_stuck")
    assert len(stuck) == ATTEMPTS
    assert {line["exit"] for line in site.node.events("role_died")} == {stuck[0]["exit"]}


def test_row_24_image_whose_worker_is_killed_at_every_try_is_set_aside_with_a_failed_report(site: Site) -> None:
    node = site.node
    film = toys.film("toy-hangs", trapped=True)
    ledger = Ledger(node, [film])
    ledger.push(20)
    for _ in range(ATTEMPTS):  # as the kernel does to a process that takes all memory
        wait_for(lambda: node.jobs()["analyse", "leased"], 40, "the worker looks at the image")
        node.kill_role("worker")
        wait_for(lambda: not node.jobs()["analyse", "leased"], 10, "the lease is back")
    node.await_idle(60)
    uid = str(film.SOPInstanceUID)
    assert site.outcome(uid) == ("failed", "too_many_attempts")
    wait_for(lambda: site.reports(uid) == 1, 10, "the report is at the PACS")
    assert site.dead()[-1]["error"] == "too_many_attempts"


@pytest.mark.parametrize(("name", "reason"), [("toy-raises", "model_raised"), ("toy-nan", "model_output_invalid")])
def test_row_24_failing_detector_fails_its_image_after_its_tries_and_the_worker_lives(
    site: Site, name: str, reason: str
) -> None:
    worker = wait_for(lambda: site.node.pid("worker"), 20, "the worker runs")
    trapped, neighbour = push(site, name)
    assert site.outcome(trapped) == ("failed", reason)
    assert site.outcome(neighbour) == ("no_finding", None)
    assert site.dead()[-1]["error"] == reason
    assert site.dead()[-1]["attempts"] == ATTEMPTS
    assert site.node.pid("worker") == worker


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("toy-corrupt", "toy-corrupt 0.0.1", "weights.pt2 differs"),
        ("toy-missing", "toy-missing", "There is no model"),
    ],
)
def test_row_24_unusable_model_package_is_audited_and_its_images_are_accepted_and_reported_as_failed(
    site: Site, name: str, model: str, reason: str
) -> None:
    worker = wait_for(lambda: site.node.pid("worker"), 20, "the worker runs")
    image, _ = push(site, name)
    assert site.outcome(image) == ("failed", "model_unavailable")
    assert [row["error"] for row in site.dead()[-3:]] == ["model_unavailable"] * 3
    assert site.node.pid("worker") == worker
    refused = [entry for entry in site.node.trail() if entry["event"].endswith("model_refused")]
    assert [entry for entry in refused if entry["model"] == model and reason in entry["detail"]["reason"]]
    assert [line for line in site.node.events("model_refused") if line["model"] == model]


def test_row_24_dead_letter_is_analysed_after_its_model_was_mended_and_the_job_requeued(site: Site) -> None:
    film = toys.film("toy-missing")
    ledger = Ledger(site.node, [film])
    ledger.push(20)
    site.node.await_idle(30)
    uid = str(film.SOPInstanceUID)
    assert site.outcome(uid) == ("failed", "model_unavailable")
    toys.install(site.node.folder / "models", "toy-missing", toys.Raises())
    job = site.dead()[-1]["job"]

    def seen() -> bool:
        site.node.run("jobs", "retry", str(job))
        site.node.await_idle(30)
        return site.outcome(uid) == ("no_finding", None)

    wait_for(seen, 40, "the mended detector has seen the image")
    wait_for(lambda: site.reports(uid) == 2, 10, "both reports, each under its own UID, are at the PACS")


def test_row_24_after_all_of_it_the_trail_verifies_and_only_the_failed_images_are_dead_letters(site: Site) -> None:
    node = site.node
    wait_for(lambda: node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    verified = node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert {row["kind"] for row in site.dead()} == {"analyse"}
    assert node.missing() == set()
    assert node.leftovers() == 0
    assert not [line for line in node.events("uncaught_error")]
