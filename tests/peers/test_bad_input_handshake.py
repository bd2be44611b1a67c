"""Rows 1 to 3 of "Bad input and what it gets" (security.md): who does not get as far as an association request."""

from __future__ import annotations

import contextlib
import os
import ssl
import time

import pytest
from support import films
from support.bad_input import HANDSHAKE_SECONDS, Target
from support.network import read_pdu
from support.strangers import answer, associate_rq, connect

GOOD_REQUEST = associate_rq("MODALITY1", "RADNODE")
SILENT, HALF = 500, 50
NOISE = {
    "plain DICOM": GOOD_REQUEST,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": b"\x00\xff" * 500,
    "a byte": b"\n",
}
# what a peer presents, the alert it is sent, and the rule
HANDSHAKES = {
    "no certificate": (None, "CERTIFICATE_REQUIRED", "tls_no_client_certificate"),
    "foreign certificate": ("../../foreign/modality", "UNKNOWN_CA", "tls_unknown_authority"),
    "expired certificate": ("expired", "CERTIFICATE_EXPIRED", "tls_certificate_expired"),
    "revoked certificate": ("revoked", "CERTIFICATE_REVOKED", "tls_certificate_revoked"),
}


@pytest.mark.parametrize("said", NOISE.values(), ids=NOISE)
def test_row_01_plain_tcp_on_the_tls_port_is_closed(target: Target, said: bytes) -> None:
    with target.attacked("tls_plain_tcp"):
        assert answer(target.port, None, said) == b""


def test_row_01_noise_that_begins_like_tls_is_closed(target: Target) -> None:
    with target.attacked("tls_malformed"), connect(target.port) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00" + os.urandom(512))
        while connection.recv(4096):  # an alert, then the end
            pass


def test_row_02_silent_clients_and_half_a_client_hello_are_closed_and_a_c_echo_is_answered(target: Target) -> None:
    with target.attacked(*["tls_timeout"] * (SILENT + HALF)), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(target.port)) for _ in range(SILENT + HALF)]
        for connection in connections[:HALF]:
            connection.sendall(client_hello()[:100])
        target.assert_serves()
        for connection in connections:
            assert read_pdu(connection) == b""


def test_row_02_client_hello_that_drips_is_closed_at_the_deadline_of_the_whole(target: Target) -> None:
    with target.attacked("tls_timeout"), connect(target.port) as connection:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in client_hello()[:40]:
                connection.sendall(bytes([byte]))
                time.sleep(HANDSHAKE_SECONDS / 10)
        assert time.monotonic() - began < 3 * HANDSHAKE_SECONDS


def test_row_02_peer_that_goes_silent_after_its_handshake_is_closed(target: Target) -> None:
    with target.attacked("association_request_timeout"), target.connect() as connection:
        assert read_pdu(connection) == b""


@pytest.mark.parametrize(("certificate", "alert", "rule"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_row_03_certificate_is_refused_with_an_alert(target: Target, certificate, alert: str, rule: str) -> None:
    with target.attacked(rule):
        with pytest.raises(ssl.SSLError) as error:
            answer(target.port, target.client(certificate), GOOD_REQUEST)
        assert alert in error.value.reason
    [entry] = target.node.trail("peer_refused")[-1:]
    assert (entry["event"], entry["action"], entry["outcome"]) == ("110113 peer_refused", "E", "minor")
    assert entry["detail"]["rule"] == rule
    assert entry["actor"] == {"ae": None, "certificate": None, "address": "127.0.0.1", "user": None}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_row_03_older_tls_is_refused_with_an_alert(target: Target, version: str) -> None:
    context = target.client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    with target.attacked("tls_version"):
        with pytest.raises(ssl.SSLError) as error:
            answer(target.port, context, GOOD_REQUEST)
        assert "ALERT_PROTOCOL_VERSION" in error.value.reason


@pytest.mark.parametrize(
    ("certificate", "rule"),
    [(None, "tls_no_client_certificate"), ("../../foreign/modality", "tls_unknown_authority")],
    ids=["no certificate", "foreign certificate"],
)
def test_row_03_storescu_that_is_refused_fails_and_nothing_is_kept(target: Target, certificate, rule: str) -> None:
    before = target.node.trail("image_received")
    with target.attacked(rule):
        sent = target.storescu([films.OPACITY], certificate=certificate)
    assert sent.returncode != 0
    assert "Peer aborted" in sent.stdout + sent.stderr
    assert target.node.trail("image_received") == before


def test_row_03_trail_of_all_that_was_refused_verifies(target: Target) -> None:
    verified = target.node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def client_hello() -> bytes:
    """The first flight of a TLS client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
