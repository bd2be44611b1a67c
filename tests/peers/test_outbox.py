"""A PACS that is down, refuses for good, and comes back: no report is lost, and every one arrives once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from support import films
from support.node import REPORT_ALONE, NodeProcess, Orthanc, free_port, wait_for
from support.strangers import scripted_pacs

# The tests of this module tell one story and run in its order.


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("outbox")
    patience = {**REPORT_ALONE, "RADNODE_DELIVER__RETRY_SECONDS": "0.5", "RADNODE_DELIVER__RETRY_MAX_SECONDS": "1"}
    with NodeProcess(folder / "node", pacs_port=port, overrides=patience) as node:
        yield node.start()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, node: NodeProcess, port: int) -> Iterator[Orthanc]:
    pacs = Orthanc(tmp_path_factory.mktemp("outbox-pacs"), port, node.folder / "pki")
    yield pacs
    pacs.stop()


def test_check_names_the_pacs_that_is_down_and_exits_1(node: NodeProcess) -> None:
    checked = node.run("check")
    assert checked.returncode == 1
    [bad] = [line for line in checked.stdout.splitlines() if line.startswith("BAD")]
    assert bad == "BAD  destination pacs: The destination pacs cannot be reached (ConnectionRefusedError)."


def test_report_waits_in_the_outbox_while_pacs_is_down(node: NodeProcess, tmp_path: Path) -> None:
    _send(node, tmp_path, "down")
    [job] = wait_for(lambda: [job for job in _deliveries(node) if job["attempts"] >= 2], 20, "it was tried twice")
    assert (job["destination"], job["state"] in ("ready", "leased")) == ("pacs", True)
    assert job["error"] == "The destination pacs cannot be reached (ConnectionRefusedError)."
    listed = node.run("jobs", "list").stdout
    assert "cannot be reached" in listed
    [result] = node.results()
    assert result["delivered"][0]["state"] in ("waiting", "sending")
    assert result["delivered"][0]["tries"] >= 2


def test_report_arrives_by_itself_once_pacs_is_up(node: NodeProcess, pacs: Orthanc) -> None:
    pacs.start()
    [path] = wait_for(pacs.report_files, 15, "the report is in Orthanc")
    [result] = node.results()
    assert pydicom.dcmread(path).SOPInstanceUID == result["report"]["SOPInstanceUID"]
    wait_for(lambda: _deliveries(node) == [], 5, "the outbox is empty")
    pacs.stop()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (0xA900, "The destination pacs answered A900 (data set does not match SOP class) to C-STORE."),
        (None, "The destination pacs does not accept SOP class 1.2.840.10008.5.1.4.1.1.88.34 in transfer syntax "),
    ],
    ids=["answers A900", "accepts no SR"],
)
def test_refusal_for_good_makes_a_dead_letter_that_retry_delivers_while_the_node_runs(
    node: NodeProcess, port: int, tmp_path: Path, status: int | None, sentence: str
) -> None:
    with scripted_pacs(port, node.folder / "pki", status) as heard:
        _send(node, tmp_path, "refused")
        [job] = wait_for(lambda: _in_state(node, "dead"), 20, "there is a dead letter")
        assert job["error"].startswith(sentence)
        assert len(heard) == (status is not None)
    assert f"{job['job']} " in node.run("jobs", "list").stdout
    assert node.rows("jobs", "show", str(job["job"])) == job
    [failure] = [entry for entry in node.trail("delivery_failed") if entry["detail"]["result"] == job["subject"]]
    assert (failure["event"], failure["outcome"]) == ("110104 delivery_failed", "serious")
    assert failure["detail"]["reason"] == job["error"]

    with scripted_pacs(port, node.folder / "pki") as heard:
        retried = node.run("jobs", "retry", str(job["job"]))
        assert (retried.returncode, retried.stdout) == (0, f"Job {job['job']} is due now.\n")
        wait_for(lambda: heard, 15, "the report was sent")
        wait_for(lambda: _deliveries(node) == [], 5, "the outbox is empty")
    [result] = [row for row in node.results() if row["id"] == job["subject"]]
    assert result["delivered"] == [{"destination": "pacs", "state": "delivered", "tries": 1}]
    assert heard == [result["report"]["SOPInstanceUID"].encode()]


def test_pacs_out_of_resources_is_tried_again_and_never_a_dead_letter(
    node: NodeProcess, port: int, tmp_path: Path
) -> None:
    with scripted_pacs(port, node.folder / "pki", 0xA700):
        _send(node, tmp_path, "full")
        [job] = wait_for(lambda: [job for job in _deliveries(node) if job["attempts"] >= 2], 20, "it was tried twice")
        assert job["state"] in ("ready", "leased")
    with scripted_pacs(port, node.folder / "pki") as heard:
        wait_for(lambda: _deliveries(node) == [], 15, "it was delivered")
        assert len(heard) == 1


def test_discarded_dead_letter_is_gone_and_its_result_stays(node: NodeProcess, port: int, tmp_path: Path) -> None:
    with scripted_pacs(port, node.folder / "pki", 0xC123):
        _send(node, tmp_path, "discarded")
        [job] = wait_for(lambda: _in_state(node, "dead"), 20, "there is a dead letter")
    assert node.run("jobs", "discard", str(job["job"])).returncode == 0
    assert node.run("jobs", "show", str(job["job"])).returncode == 1
    assert node.run("results", "show", job["subject"]).returncode == 0
    changes = [entry["detail"]["change"] for entry in node.trail("job_changed")]
    assert changes == ["retried", "retried", "discarded"]


def test_trail_of_all_this_verifies(node: NodeProcess) -> None:
    verified = node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def _send(node: NodeProcess, folder: Path, label: str) -> None:
    path = folder / f"{label}.dcm"
    path.write_bytes(films.file_bytes(films.fresh(films.NORMAL)))
    sent = node.storescu([path])
    assert sent.returncode == 0, sent.stderr


def _deliveries(node: NodeProcess) -> list[dict]:
    return [job for job in node.rows("jobs", "list") if job["kind"] == "deliver"]


def _in_state(node: NodeProcess, state: str) -> list[dict]:
    return [job for job in _deliveries(node) if job["state"] == state]
