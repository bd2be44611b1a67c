"""Activate and rollback while images come: none is lost, and each report names the version that really ran."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

from pydicom.dataset import Dataset
from support import films, toys
from support.crash import CrashNode, Ledger, assert_one_report_each, report_counts
from support.node import REPORT_ALONE, Orthanc, free_port, wait_for
from support.report_checks import name, walk

IMAGES = 300
SLOW, FAST = 1.0, 0.02  # seconds between two images: while a step is taken, so that it falls into the push; else
LOGITS = {"1.0.0": -3.0, "1.1.0": -1.0}  # what a version says of every image: its score tells which one ran
SCORES = {"1.0.0": 0.0474, "1.1.0": 0.2689}


def images(count: int) -> list[Dataset]:
    """Small films, ten a study."""
    made = []
    for number in range(count):
        film = films.fresh(films.NORMAL, PatientID=f"P{number // 10}", Rows=96, Columns=96)
        film.PixelData = bytes(range(96)) * 96
        if number % 10:
            film.StudyInstanceUID = made[-1].StudyInstanceUID
        made.append(film)
    return made


def packages(folder: Path) -> dict[str, Path]:
    """Write the versions of one model."""
    how = {"percentiles": [0.0, 100.0], "threshold": 0.9}
    return {
        version: toys.package(folder / version, "toy", toys.program(toys.Says(logit)), version=version, **how)
        for version, logit in LOGITS.items()
    }


def spoiled(folder: Path) -> Path:
    """Write a package that was changed by one byte after it was signed."""
    how = {"percentiles": [0.0, 100.0], "threshold": 0.9}
    package = toys.package(folder, "toy", bytes(1000), version="1.2.0", **how)
    (package / "weights.pt2").write_bytes(bytes(999) + b"\x01")
    return package


def device(report: Dataset) -> tuple[str, str]:
    """Return the version and the device UID that a report names."""
    found = {name(item): item for item in walk(report)}
    return str(found["111003"].TextValue), str(found["121012"].UID)


def test_no_image_is_lost_and_each_report_names_the_version_that_ran_through_activations_and_rollbacks(
    tmp_path: Path,
) -> None:
    port = free_port()
    versions = packages(tmp_path / "packages")
    with (
        CrashNode(tmp_path / "node", pacs_port=port, overrides=REPORT_ALONE) as node,
        Orthanc(tmp_path / "pacs", port, node.folder / "pki") as pacs,
    ):
        toys.trust(node.folder / "models")
        node.config.write_text(node.config.read_text().replace('detect = ["cxr-opacity"]', 'detect = ["toy"]'))
        steps = [["add", str(path)] for path in versions.values()] + [["activate", "toy", "1.0.0"]]
        assert [node.run("models", *step).returncode for step in steps] == [0, 0, 0]
        node.start()
        ledger = Ledger(node, images(IMAGES), pause=SLOW)
        failure: list[BaseException] = []

        def push() -> None:
            try:
                ledger.push(240)
            except BaseException as error:  # noqa: BLE001 (raised again in the test's own thread)
                failure.append(error)

        client = threading.Thread(target=push)
        client.start()
        changes = []
        for step in (["activate", "toy", "1.1.0"], ["rollback", "toy"], ["activate", "toy", "1.1.0"]):
            done = node.run("models", *step, "--reason", "trial of the new version")
            assert done.returncode == 0, done.stderr
            changes.append(len(ledger.promised))
            ledger.pause = FAST
            wait_for(lambda: len(ledger.promised) > changes[-1] + 12, 60, "images came after the step")
            ledger.pause = SLOW
        refused = node.run("models", "add", spoiled(tmp_path / "spoiled"))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "weights.pt2 differs from the manifest" in refused.stderr
        node.kill_role("worker")  # in the middle of it all
        changes.append(len(ledger.promised))
        assert node.run("models", "rollback", "toy").returncode == 0
        assert len(ledger.promised) < IMAGES, "every step is to fall into the push"
        ledger.pause = FAST
        client.join()
        assert failure == []
        node.await_idle(120)
        wait_for(lambda: report_counts(pacs) >= IMAGES, 20, "every report is at the PACS")
        reports = assert_one_report_each(pacs, ledger.promised)
        results = node.results()
        loaded = [line["model"] for line in node.events("model_loaded")]
        alarms = [entry for entry in node.trail() if entry["event"] == "110113 model_refused"]
        changed = [entry for entry in node.trail() if entry["event"] == "110113 model_changed"]
        assert node.stop() == 0
        node.assert_sound()
    assert ["weights.pt2 differs" in entry["detail"]["reason"] for entry in alarms] == [True]
    ran = {item["report"]["SOPInstanceUID"]: item["model"] for item in results}
    assert {item["model"]["version"]: round(item["score"], 4) for item in results} == SCORES
    assert all(round(item["score"], 4) == SCORES[item["model"]["version"]] for item in results)
    for report in reports:
        model = ran[str(report.SOPInstanceUID)]
        assert device(report) == (model["version"], model["device_uid"])
    assert len({model["device_uid"] for model in ran.values()}) == 2
    # 1.1.0 came twice and 1.0.0 came back twice; which of them the new worker found first is chance.
    assert loaded[:4] == ["toy 1.0.0", "toy 1.1.0", "toy 1.0.0", "toy 1.1.0"]
    assert loaded[-1] == "toy 1.0.0"
    assert [entry["detail"]["change"] for entry in changed] == [
        *("added", "added", "activated"),
        *("activated", "rolled_back", "activated", "rolled_back"),
    ]
    print(json.dumps({"ran": Counter(model["version"] for model in ran.values()), "promised at each step": changes}))
