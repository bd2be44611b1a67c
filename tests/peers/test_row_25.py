"""Row 25: a destination that is down, refuses, hangs, or answers A700 for hours; and images that are forwarded to it.

Each with a process of its own as the destination, that is stopped, killed, or told what to answer. The destination that
loses an object after success is in test_commitment.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.filereader import read_file_meta_info
from support import films
from support.node import REPORT_ALONE, NodeProcess, free_port, wait_for

STORESCP = "/usr/bin/storescp"
PATIENCE = {
    **REPORT_ALONE,
    "RADNODE_DELIVER__RETRY_SECONDS": "0.3",
    "RADNODE_DELIVER__RETRY_MAX_SECONDS": "1",
    "RADNODE_DELIVER__PROBE_SECONDS": "1",
    "RADNODE_DELIVER__TIMEOUT_SECONDS": "2",
}
BUSY = """
import ssl, sys
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
port, pki, status = int(sys.argv[1]), sys.argv[2], int(sys.argv[3], 16)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki + "/ca.crt")
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain(pki + "/pacs.crt", pki + "/pacs.key")
ae = AE("PACS")
for context_of in AllStoragePresentationContexts:
    ae.add_supported_context(context_of.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.start_server(("127.0.0.1", port), ssl_context=context, evt_handlers=[(evt.EVT_C_STORE, lambda event: status)])
"""


class Site:
    """A node without a worker that forwards every image to `pacs`, and to `archive`, which is always well."""

    def __init__(self, folder: Path) -> None:
        self.port, self.archive_port = free_port(), free_port()
        self.folder = folder
        self.node = NodeProcess(folder / "node", pacs_port=self.port, overrides=PATIENCE)
        text = self.node.config.read_text().replace("forward = []", 'forward = ["pacs", "archive"]')
        archive = '[[destinations]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\n'
        archive += f"port = {self.archive_port}\n"
        self.node.config.write_text(text + "\n" + archive)
        self.sent = 0

    def send(self, count: int = 1) -> list[pydicom.Dataset]:
        """Send films with storescu and return them."""
        made, paths = [], []
        for _ in range(count):
            self.sent += 1
            made.append(films.fresh(films.NORMAL))
            paths.append(self.folder / f"{self.sent}.dcm")
            paths[-1].write_bytes(films.file_bytes(made[-1]))
        assert self.node.storescu(paths).returncode == 0
        return made

    def forwards(self, destination: str = "pacs") -> list[dict[str, Any]]:
        rows = self.node.rows("jobs", "list")
        return [row for row in rows if (row["kind"], row["destination"]) == ("forward", destination)]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.node.log() if line["event"] == event and line.get("destination") == "pacs"]

    @contextmanager
    def storescp(self, port: int, name: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """dcmtk's storescp over mutual TLS, which writes bit for bit what it is sent."""
        kept, pki = self.folder / name, self.node.folder / "pki"
        kept.mkdir(exist_ok=True)
        tls = ["+tls", str(pki / "pacs.key"), str(pki / "pacs.crt"), "+cf", str(pki / "ca.crt")]
        command = [STORESCP, "+B", "+xa", *tls, "-od", str(kept), "-aet", name.upper(), str(port)]
        with listening(command, port) as process:
            yield process, kept


@contextmanager
def listening(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port), 20, "the destination listens")
        yield process
    finally:
        process.kill()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("row25"))
    with site.node, site.storescp(site.archive_port, "archive"):
        site.node.start(role="intake,deliver", wait=("intake", "deliver"))
        yield site


def arrives(site: Site, kept: Path, made: list[pydicom.Dataset]) -> None:
    """Assert that the objects arrive, each once, in their transfer syntax, their data sets bit for bit."""
    wait_for(lambda: not site.forwards(), 30, "everything was forwarded")
    for dataset in made:
        [path] = [path for path in kept.iterdir() if path.name.endswith(dataset.SOPInstanceUID)]
        sent = site.folder / "sent.dcm"
        sent.write_bytes(films.file_bytes(dataset))
        assert read_file_meta_info(path).TransferSyntaxUID == dataset.file_meta.TransferSyntaxUID
        assert _data_set(path) == _data_set(sent)


def _data_set(path: Path) -> bytes:
    meta = read_file_meta_info(path)
    return path.read_bytes()[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


def test_row_25_down_keeps_images_and_the_other_destination_has_them_meanwhile(site: Site) -> None:
    made = site.send(3)
    wait_for(lambda: site.said("destination_out_of_reach"), 20, "the breaker opened")
    wait_for(lambda: not site.forwards("archive"), 20, "the archive has them")
    assert len(site.forwards()) == 3
    assert "pacs is out of reach since" in site.node.run("jobs", "list").stderr
    assert "out of reach for deliveries since" in site.node.run("check").stdout
    with site.storescp(site.port, "pacs") as (_, kept):
        arrives(site, kept, made)
    assert [line["event"] for line in site.said("destination_back")] == ["destination_back"]


def test_row_25_hangs_is_waited_for_no_longer_than_the_deadline_and_gets_everything_later(site: Site) -> None:
    before = len(site.said("destination_out_of_reach"))
    with site.storescp(site.port, "pacs") as (process, kept):
        os.kill(process.pid, signal.SIGSTOP)
        made = site.send(2)
        wait_for(lambda: not site.forwards("archive"), 20, "the archive has them")
        wait_for(lambda: len(site.said("destination_out_of_reach")) > before, 40, "the breaker opened")
        assert "did not answer in time" in site.said("destination_out_of_reach")[-1]["message"]
        os.kill(process.pid, signal.SIGCONT)
        arrives(site, kept, made)


def test_row_25_a700_for_long_is_tried_again_and_never_a_dead_letter(site: Site) -> None:
    command = [sys.executable, "-c", BUSY, str(site.port), str(site.node.folder / "pki"), "A700"]
    with listening(command, site.port):
        made = site.send(2)
        wait_for(lambda: any(job["attempts"] >= 4 for job in site.forwards()), 30, "it was tried four times")
        time.sleep(3)
        assert {job["state"] for job in site.forwards()} <= {"ready", "leased"}
    with site.storescp(site.port, "pacs") as (_, kept):
        arrives(site, kept, made)


def test_row_25_refusal_for_good_is_a_dead_letter_that_retry_of_the_destination_sends(site: Site) -> None:
    command = [sys.executable, "-c", BUSY, str(site.port), str(site.node.folder / "pki"), "A900"]
    with listening(command, site.port):
        made = site.send(2)
        wait_for(lambda: [job["state"] for job in site.forwards()] == ["dead"] * 2, 30, "both are dead letters")
    with site.storescp(site.port, "pacs") as (_, kept):
        retried = site.node.run("jobs", "retry", "--destination", "pacs")
        assert (retried.returncode, retried.stdout) == (0, "2 dead letters are due now.\n")
        arrives(site, kept, made)


def test_row_25_killed_in_the_middle_of_a_push_gets_each_image(site: Site) -> None:
    with site.storescp(site.port, "pacs") as (process, kept):
        made = site.send(3)
        wait_for(lambda: any(kept.iterdir()), 20, "it was sent something")
        process.kill()
        made += site.send(3)
    with site.storescp(site.port, "pacs") as (_, kept):
        arrives(site, kept, made)
    assert site.node.run("audit", "verify").returncode == 0
