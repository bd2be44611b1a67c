"""Peers that are turned away: the right answer on the wire, one log line that explains it, one audit entry."""

from __future__ import annotations

import contextlib
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support import films
from support.node import STORESCU, NodeProcess, wait_for
from support.strangers import answer, associate_rq, connect, tls

from radnode.pki import fingerprint, make_test_pki

CALLING_NOT_RECOGNIZED = bytes.fromhex("03000000000400010103")  # A-ASSOCIATE-RJ 1/1/3, PS3.8 9.3.4
CALLED_NOT_RECOGNIZED = bytes.fromhex("03000000000400010107")  # 1/1/7
ACCEPTED = b"\x02"  # A-ASSOCIATE-AC, 9.3.3
CLOSED = b""
SILENT, HALF = 50, 5


@dataclass(frozen=True)
class Stranger:
    """One peer that is refused: how it comes, what it gets, and under which rule it is logged."""

    rule: str
    certificate: str | None
    said: bytes
    heard: bytes | str  # bytes on the wire, or the TLS alert
    ae_title: str | None = None
    tls: bool = True


HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOOD_REQUEST = associate_rq("MODALITY1", "RADNODE")
STRANGERS = {
    "no certificate": Stranger("tls_no_client_certificate", None, GOOD_REQUEST, "CERTIFICATE_REQUIRED"),
    "foreign certificate": Stranger("tls_unknown_authority", "foreign", GOOD_REQUEST, "UNKNOWN_CA"),
    "certificate of another": Stranger(
        "certificate_of_another", "admin", GOOD_REQUEST, CALLING_NOT_RECOGNIZED, "MODALITY1"
    ),
    "unknown calling": Stranger(
        "calling_ae_title_unknown", "modality", associate_rq("STRANGER", "RADNODE"), CALLING_NOT_RECOGNIZED, "STRANGER"
    ),
    "wrong called": Stranger(
        "called_ae_title_unknown", "modality", associate_rq("MODALITY1", "OTHER"), CALLED_NOT_RECOGNIZED, "MODALITY1"
    ),
    "plain DICOM": Stranger("tls_plain_tcp", None, GOOD_REQUEST, CLOSED, tls=False),
    "plain HTTP": Stranger("tls_plain_tcp", None, HTTP, CLOSED, tls=False),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("refusals")
    make_test_pki(folder / "foreign")
    with NodeProcess(folder / "node") as node:
        yield node.start(role="intake", wait=("intake", "sequencer"))


@pytest.fixture
def refused(node: NodeProcess) -> Iterator[Callable[[], tuple[dict, dict]]]:
    """Waits for the one log line and the one audit entry of the refusal in the test, and for no second of either."""
    lines, entries = len(_lines(node)), len(node.trail("peer_refused"))

    def told() -> tuple[dict, dict]:
        wait_for(lambda: len(node.trail("peer_refused")) > entries, 10, "the refusal is in the trail")
        context = tls(node.folder / "pki" / "ca.crt", node.folder / "pki" / "modality.crt")
        assert answer(node.port, context, GOOD_REQUEST)[:1] == ACCEPTED  # after it, so a second one would show by now
        [line], [entry] = _lines(node)[lines:], node.trail("peer_refused")[entries:]
        return line, entry

    return told


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_stranger_is_refused_on_the_wire_in_one_log_line_and_in_one_audit_entry(
    node: NodeProcess, refused, stranger: Stranger
) -> None:
    pki = node.folder / "pki"
    certificate = None if stranger.certificate is None else pki / f"{stranger.certificate}.crt"
    if stranger.certificate == "foreign":
        certificate = node.folder.parent / "foreign" / "modality.crt"
    context = tls(pki / "ca.crt", certificate) if stranger.tls else None
    if isinstance(stranger.heard, str):
        with pytest.raises(ssl.SSLError) as alert:
            answer(node.port, context, stranger.said)
        assert stranger.heard in alert.value.reason
    else:
        assert answer(node.port, context, stranger.said) == stranger.heard

    line, entry = refused()
    assert (line["level"], line["rule"], line["address"]) == ("warning", stranger.rule, "127.0.0.1")
    assert re.fullmatch(r"[A-Z].*\.", line["advice"])
    assert line.get("ae") == stranger.ae_title
    assert entry["event"] == "110113 peer_refused"
    assert (entry["action"], entry["outcome"], entry["detail"]["rule"]) == ("E", "minor", stranger.rule)
    seen = fingerprint(certificate) if certificate and not isinstance(stranger.heard, str) else None
    assert entry["actor"] == {"ae": stranger.ae_title, "certificate": seen, "address": "127.0.0.1", "user": None}


@pytest.mark.parametrize(
    ("certificate", "says"),
    [("admin", "Calling AE Title Not Recognized"), (None, "Peer aborted"), ("foreign", "Peer aborted")],
    ids=["another's certificate", "no certificate", "foreign certificate"],
)
def test_storescu_that_is_refused_fails_and_nothing_is_kept(node: NodeProcess, refused, certificate, says) -> None:
    pki = node.folder / "pki"
    holder = node.folder.parent / "foreign" / "modality" if certificate == "foreign" else pki / f"{certificate}"
    own = ["+tla"] if certificate is None else ["+tls", f"{holder}.key", f"{holder}.crt"]
    titles = ["-aet", "MODALITY1", "-aec", "RADNODE", "127.0.0.1", str(node.port)]
    command = [STORESCU, "-v", *own, "+cf", str(pki / "ca.crt"), *titles, str(films.OPACITY)]
    sent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert sent.returncode != 0
    assert says in sent.stdout + sent.stderr
    refused()
    assert node.trail("image_received") == []
    assert node.rows("jobs", "list", "--all") == []


def test_title_that_forges_log_lines_stays_on_one_line(node: NodeProcess, refused) -> None:
    forged = associate_rq("STRANGER12345678", "RADNODE").replace(b"STRANGER12345678", b'\r\n{"event":"x"}\x00')
    context = tls(node.folder / "pki" / "ca.crt", node.folder / "pki" / "modality.crt")
    assert answer(node.port, context, forged) == CALLING_NOT_RECOGNIZED
    line, entry = refused()
    assert line["ae"] == entry["actor"]["ae"] == r'\r\n{"event":"x"}\x00'


def test_echo_is_answered_within_a_second_beside_silent_clients(node: NodeProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(connect(node.port))
        for _ in range(HALF):
            stack.enter_context(connect(node.port)).sendall(_client_hello()[:100])
        context = tls(node.folder / "pki" / "ca.crt", node.folder / "pki" / "modality.crt")
        began = time.monotonic()
        assert answer(node.port, context, GOOD_REQUEST)[:1] == ACCEPTED
        assert time.monotonic() - began < 1
        echo = node.run("echo")
        assert echo.returncode == 0, echo.stderr
        milliseconds = re.fullmatch(r"RADNODE@127.0.0.1:\d+ answered in ([\d.]+) ms\n", echo.stdout)
        assert milliseconds
        assert float(milliseconds[1]) < 1000


def test_log_and_trail_tell_of_the_same_refusals_and_the_trail_verifies(node: NodeProcess) -> None:
    def agree() -> bool:
        return sorted(line["rule"] for line in _lines(node)) == sorted(
            entry["detail"]["rule"] for entry in node.trail("peer_refused")
        )

    wait_for(lambda: agree() and len(_lines(node)) >= SILENT + HALF, 15, "log and trail agree")
    assert node.run("audit", "verify").returncode == 0


def _lines(node: NodeProcess) -> list[dict]:
    return [line for line in node.log() if line["event"] == "peer_refused"]


def _client_hello() -> bytes:
    """The first flight of a TLS client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
