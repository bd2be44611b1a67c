"""kill -9 of all node processes in the middle of a push, five times over: what was promised has exactly one report."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support import films
from support.crash import CrashNode, Ledger, assert_one_report_each, report_counts
from support.node import Orthanc, free_port, wait_for

IMAGES = 200
STUDIES = 20
KILLS = 5
REPAIRED = ("leases", "stretches", "sockets", "entries", "torn_bytes")


def worklist() -> list[Dataset]:
    """200 instances of 20 studies: mostly CT slices (not attempted), every 25th a chest film (analysed)."""
    studies = [generate_uid(prefix=None) for _ in range(STUDIES)]
    images = []
    for number in range(IMAGES):
        path = films.CT[number % len(films.CT)]
        if number % 25 == 0:
            path = (films.OPACITY, films.NORMAL)[number // 25 % 2]
        images.append(films.fresh(path, StudyInstanceUID=studies[number % STUDIES], PatientID=f"P{number % STUDIES}"))
    return images


def kill_five_times(node: CrashNode, ledger: Ledger, chance: random.Random) -> list[dict[str, int]]:
    """kill -9 everything whenever another seventh of the images was answered; return what each kill left behind.

    The last kill has two sevenths before it, so that it hits the push on a busy machine too.
    """
    left = []
    for kill in range(1, KILLS + 1):
        wait_for(lambda kill=kill: len(ledger.promised) >= kill * IMAGES // (KILLS + 2), 60, f"kill {kill} is due")
        if kill != KILLS:  # the last one finds a worker that is still starting
            ledger.pause = 0.4  # so that the push still runs when the worker is up
            wait_for(lambda: node.jobs()["analyse", "leased"], 60, "the worker is in the middle of a batch")
        ledger.pause = 0.05  # two sevenths of the images take three seconds and more
        time.sleep(chance.uniform(0.05, 0.25))
        node.kill_everything()
        assert len(ledger.promised) < IMAGES, "the kill is to hit the push"
        left.append({"promised": len(ledger.promised), **node.left()})
        node.start(wait=("intake",))
    return left


def test_every_image_answered_success_has_exactly_one_report_after_five_kills(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 (no secret)
    port = free_port()
    began = time.monotonic()
    with (
        CrashNode(tmp_path / "node", pacs_port=port) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.start()
        ledger = Ledger(node, worklist())
        failure: list[BaseException] = []

        def push() -> None:
            try:
                ledger.push(150)
            except BaseException as error:  # noqa: BLE001 (raised again in the test's own thread)
                failure.append(error)

        client = threading.Thread(target=push)
        client.start()
        left = kill_five_times(node, ledger, chance)
        client.join()
        assert failure == []
        assert len(ledger.promised) == IMAGES
        pushed = time.monotonic() - began
        node.await_idle(120)
        wait_for(lambda: report_counts(pacs) >= IMAGES, 10, "every report is at the PACS")
        reports = assert_one_report_each(pacs, ledger.promised)
        results = node.results()
        repaired, known = node.events("start_repaired"), len(node.events("image_known"))
        assert node.stop() == 0
        node.assert_sound()
    assert Counter(result["outcome"] for result in results) == Counter(
        not_attempted=IMAGES - IMAGES // 25, no_finding=IMAGES // 50, finding=IMAGES // 50
    )
    assert {result["report"]["SOPInstanceUID"] for result in results} == {str(r.SOPInstanceUID) for r in reports}
    # The next start gives their room back.
    assert sum(kill["orphans"] for kill in left) <= KILLS * 3
    remains = [kill["orphans"] + kill["half-written bytes"] > 0 for kill in left]
    assert sum(line["stretches"] > 0 for line in repaired) == sum(remains)
    figures = {
        "promised": len(ledger.promised),
        "sent": ledger.sent,
        "answered": sum(map(len, ledger.answers.values())),
        "sent again and known": known,
        "associations failed": ledger.unanswered,
        "reports": len(reports),
        "left_by_each_kill": left,
        "repaired": [{key: line[key] for key in REPAIRED} for line in repaired],
        "seconds": {"push": round(pushed), "all": round(time.monotonic() - began)},
    }
    print(json.dumps(figures, indent=1))
