"""Storage Commitment with Orthanc over mutual TLS: it asks and is answered, whatever is restarted in between."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from support import films
from support.node import REPORT_ALONE, NodeProcess, Orthanc, free_port, wait_for
from support.strangers import tls

from radnode import pki
from radnode.commitment_sets import IMPLICIT, STORAGE_COMMITMENT_INSTANCE, write_request
from radnode.model import CommitmentRequest, Reference

NO_SUCH_INSTANCE, CLASS_INSTANCE_CONFLICT = 0x0112, 0x0119
PATIENCE = {"RADNODE_DELIVER__RETRY_SECONDS": "0.5", "RADNODE_DELIVER__RETRY_MAX_SECONDS": "1"}


def add_peer(node: NodeProcess, pacs_port: int) -> None:
    """Let the PACS of the test PKI store and ask for commitments, and know where it takes the answers."""
    fingerprint = pki.fingerprint(node.folder / "pki" / "pacs.crt")
    peer = f"""
[[peers]]
ae_title = "PACS"
certificate_sha256 = "{fingerprint}"
may = ["store", "echo", "commit"]
commit = {{ host = "127.0.0.1", port = {pacs_port} }}
"""
    node.config.write_text(node.config.read_text() + peer)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def node(tmp_path: Path, port: int) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "node", overrides=PATIENCE) as node:
        add_peer(node, port)
        yield node


@pytest.fixture
def pacs(tmp_path: Path, node: NodeProcess, port: int) -> Iterator[Orthanc]:
    known = {"radnode": {"AET": "RADNODE", "Host": "127.0.0.1", "Port": node.port, "UseDicomTls": True}}
    pacs = Orthanc(tmp_path / "pacs", port, node.folder / "pki", DicomModalities=known)
    yield pacs
    pacs.stop()


def film(path: Path) -> tuple[str, str]:
    """Write a film of a new patient; return its SOP class and instance."""
    dataset = films.fresh(films.NORMAL)
    path.write_bytes(films.file_bytes(dataset))
    return str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)


def ask(pacs: Orthanc, *instances: tuple[str, str]) -> str:
    """Let Orthanc ask the node; return the path of its own account of it."""
    named = [{"SOPClassUID": class_uid, "SOPInstanceUID": instance_uid} for class_uid, instance_uid in instances]
    return str(pacs.post("/modalities/radnode/storage-commitment", {"DicomInstances": named})["Path"])


def answered(pacs: Orthanc, path: str) -> dict:
    found: dict = pacs.get(path)
    return found if found["Status"] != "Pending" else {}


def test_orthanc_asks_and_is_told_what_is_kept(node: NodeProcess, pacs: Orthanc, tmp_path: Path) -> None:
    node.start()
    pacs.start()
    kept = film(tmp_path / "film.dcm")
    assert node.storescu([tmp_path / "film.dcm"]).returncode == 0
    path = ask(pacs, kept)
    report = wait_for(lambda: answered(pacs, path), 20, "Orthanc was told")
    assert (report["Status"], report["RemoteAET"]) == ("Success", "RADNODE")
    assert [item["SOPInstanceUID"] for item in report["Success"]] == [kept[1]]
    path = ask(pacs, kept, (kept[0], "1.2.3.4.5"), ("1.2.840.10008.5.1.4.1.1.2", kept[1]))
    report = wait_for(lambda: answered(pacs, path), 20, "Orthanc was told")
    assert report["Status"] == "Failure"
    reasons = {(item["SOPClassUID"], item["SOPInstanceUID"]): item["FailureReason"] for item in report["Failures"]}
    assert reasons == {
        (kept[0], "1.2.3.4.5"): NO_SUCH_INSTANCE,
        ("1.2.840.10008.5.1.4.1.1.2", kept[1]): CLASS_INSTANCE_CONFLICT,
    }
    assert len(node.trail("commitment_requested")) == 2


def test_answer_survives_kill_of_the_node_and_waits_for_the_peer(
    node: NodeProcess, pacs: Orthanc, tmp_path: Path
) -> None:
    node.start(role="intake", wait=["intake"])  # nobody calls the peer yet
    pacs.start()
    kept = film(tmp_path / "film.dcm")
    assert node.storescu([tmp_path / "film.dcm"]).returncode == 0
    path = ask(pacs, kept)
    node.kill()
    assert pacs.get(path)["Status"] == "Pending"
    node.start()
    report = wait_for(lambda: answered(pacs, path), 30, "Orthanc was told")
    assert report["Status"] == "Success"
    wait_for(lambda: node.trail("commitment_reported"), 10, "the answer is in the trail")
    assert [job for job in node.rows("jobs", "list") if job["kind"] == "commit"] == []
    verified = node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def test_log_and_trail_name_no_uid(node: NodeProcess, pacs: Orthanc, tmp_path: Path) -> None:
    node.start()
    pacs.start()
    kept = film(tmp_path / "film.dcm")
    assert node.storescu([tmp_path / "film.dcm"]).returncode == 0
    path = ask(pacs, kept, (kept[0], "1.2.3.4.5.6.7"))
    wait_for(lambda: answered(pacs, path), 20, "Orthanc was told")
    [line] = wait_for(
        lambda: [line for line in node.log() if line["event"] == "commitment_reported"], 10, "the node says so"
    )
    assert (line["ae"], line["count"], line["failed"], line["status"]) == ("PACS", 1, 1, "0112")
    node.stop()
    written = node.log_path.read_bytes() + b"".join(path.read_bytes() for path in node.folder.rglob("*.jsonl"))
    written += b"".join(path.read_bytes() for path in node.folder.glob("node.db*"))
    assert kept[1].encode() not in written
    assert b"1.2.3.4.5.6.7" not in written


def test_modality_without_an_address_is_told_on_its_association(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", overrides=PATIENCE) as node:
        text = node.config.read_text()
        node.config.write_text(text.replace('may = ["store", "echo"] ', 'may = ["store", "echo", "commit"] ', 1))
        node.start(wait=["intake"])
        kept = film(tmp_path / "film.dcm")
        assert node.storescu([tmp_path / "film.dcm"]).returncode == 0
        pki_folder = node.folder / "pki"
        context = tls(pki_folder / "ca.crt", pki_folder / "modality.crt")
        told: list[Dataset] = []

        def listen(event: evt.Event) -> tuple[int, None]:
            told.append(event.event_information)
            return 0x0000, None

        ae = AE("MODALITY1")
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate(
            "127.0.0.1",
            node.port,
            ae_title="RADNODE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, listen)],
            tls_args=(context, "localhost"),
        )
        request = CommitmentRequest("1.2.3.99", (Reference(*kept), Reference(kept[0], "1.2.3.4.5")))
        information = read_dataset(BytesIO(write_request(request, IMPLICIT)), True, True)
        status, _ = association.send_n_action(information, 1, StorageCommitmentPushModel, STORAGE_COMMITMENT_INSTANCE)
        assert status.Status == 0x0000
        wait_for(lambda: told, 10, "the modality was told")
        association.release()
        assert [item.ReferencedSOPInstanceUID for item in told[0].ReferencedSOPSequence] == [kept[1]]
        assert [item.FailureReason for item in told[0].FailedSOPSequence] == [NO_SUCH_INSTANCE]
        wait_for(lambda: len(node.trail("commitment_reported")) == 2, 10, "both patients are in the trail")


# --- the node asks Orthanc


@pytest.fixture
def asking(tmp_path: Path, port: int, request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    """A node that calls a report delivered when its PACS has committed it, and asks again after six seconds, or so."""
    seconds = getattr(request, "param", 6)
    patience = {**PATIENCE, **REPORT_ALONE, "RADNODE_DELIVER__COMMITMENT_SECONDS": str(seconds)}
    with NodeProcess(tmp_path / "asking", pacs_port=port, overrides=patience) as node:
        text = node.config.read_text()
        assert "\ncommitment = false" in text
        node.config.write_text(text.replace("\ncommitment = false", "\ncommitment = true "))
        add_peer(node, port)
        yield node


def orthanc_of(node: NodeProcess, folder: Path, port: int, *, its_port: int | None = None) -> Orthanc:
    """Orthanc as the PACS of a node, which it finds at `its_port`."""
    known = {"radnode": {"AET": "RADNODE", "Host": "127.0.0.1", "Port": its_port or node.port, "UseDicomTls": True}}
    return Orthanc(folder, port, node.folder / "pki", DicomModalities=known)


def deliveries(node: NodeProcess) -> list[str]:
    return [delivery["state"] for row in node.results() for delivery in row["delivered"]]


def send(node: NodeProcess, path: Path) -> None:
    film(path)
    assert node.storescu([path]).returncode == 0


def test_report_is_delivered_when_orthanc_has_committed_it(asking: NodeProcess, tmp_path: Path, port: int) -> None:
    with orthanc_of(asking, tmp_path / "pacs", port) as pacs:
        asking.start()
        checked = asking.run("check").stdout
        assert "takes storage commitments" in checked
        send(asking, tmp_path / "film.dcm")
        wait_for(lambda: deliveries(asking) == ["delivered"], 30, "Orthanc has committed the report")
        assert len(pacs.report_files()) == 1
    names = [entry["event"].split()[1] for entry in asking.trail()]
    assert names.index("report_sent") < names.index("report_delivered")


def test_answer_that_comes_after_kill_of_the_node_counts(asking: NodeProcess, tmp_path: Path, port: int) -> None:
    elsewhere = free_port()
    folder = tmp_path / "pacs"
    with orthanc_of(asking, folder, port, its_port=elsewhere):  # its answers reach nobody
        asking.start()
        send(asking, tmp_path / "film.dcm")
        wait_for(lambda: deliveries(asking) == ["sent"], 30, "Orthanc has taken the report")
        assert not [entry for entry in asking.trail("report_delivered")]
        asking.kill()
    with orthanc_of(asking, folder, port) as pacs:
        asking.start()
        wait_for(lambda: deliveries(asking) == ["delivered"], 90, "Orthanc has committed the report")
        assert len(pacs.report_files()) == 1


@pytest.mark.parametrize("asking", [600], indirect=True)  # not by itself: it is asked again once the PACS is back
def test_row_25_report_that_orthanc_loses_after_success_is_sent_again(
    asking: NodeProcess, tmp_path: Path, port: int
) -> None:
    elsewhere = free_port()
    folder = tmp_path / "pacs"
    with orthanc_of(asking, folder, port, its_port=elsewhere) as pacs:
        asking.start()
        send(asking, tmp_path / "film.dcm")
        wait_for(lambda: deliveries(asking) == ["sent"], 30, "Orthanc has taken the report")
        [study] = pacs.get("/studies")
        pacs.delete(f"/studies/{study}")
    with orthanc_of(asking, folder, port) as pacs:
        [job] = [row["job"] for row in asking.rows("jobs", "list") if row["kind"] == "deliver"]
        assert asking.run("jobs", "retry", str(job)).returncode == 0
        wait_for(lambda: deliveries(asking) == ["delivered"], 90, "Orthanc has committed the report")
        [report] = pacs.report_files()
        assert report.exists()
    [lost] = asking.trail("delivery_failed")
    assert lost["detail"]["reason"] == "The destination pacs did not commit it (0112); it is sent again."
