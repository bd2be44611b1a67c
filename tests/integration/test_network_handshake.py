"""TLS handshakes: who is refused, and what is agreed with the others."""

from __future__ import annotations

import socket
import ssl

import pytest
from support.certificates import DAY, resigned, revocation_list
from support.network import (
    echo_milliseconds,
    read_pdu,
    request_pdu,
    running_node,
)


def handshake_fails(node, context: ssl.SSLContext) -> None:
    """Also when the failure shows only with the first byte after it, as in TLS 1.3."""
    raw = socket.create_connection(("127.0.0.1", node.port), 5)
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False) as connection,
    ):
        connection.do_handshake()
        connection.sendall(request_pdu())
        if not connection.recv(1):
            raise ConnectionResetError


@pytest.mark.parametrize("noise", [bytes(request_pdu()), b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff" * 50])
def test_plain_tcp_on_the_tls_port_is_closed_and_reported(node, noise):
    with socket.create_connection(("127.0.0.1", node.port), 5) as connection:
        connection.sendall(noise)
        assert read_pdu(connection) == b""
    assert node.await_refusals() == ["tls_plain_tcp"]
    assert node.refusals[0].address == "127.0.0.1"


def test_no_client_certificate_is_refused(node):
    handshake_fails(node, node.client(None))
    assert node.await_refusals() == ["tls_no_client_certificate"]


def test_certificate_of_a_foreign_authority_is_refused(node, other_folder):
    context = node.client(None)
    context.load_cert_chain(other_folder / "modality.crt", other_folder / "modality.key")
    handshake_fails(node, context)
    assert node.await_refusals() == ["tls_unknown_authority"]


@pytest.mark.parametrize(
    ("begin", "end", "rule"),
    [(-20, -1, "tls_certificate_expired"), (1, 20, "tls_certificate_not_yet_valid")],
)
def test_certificate_outside_its_dates_is_refused(node, tmp_path, begin, end, rule):
    resigned(node.folder, tmp_path / "late.crt", begin * DAY, end * DAY)
    context = node.client(None)
    context.load_cert_chain(tmp_path / "late.crt", node.folder / "modality.key")
    handshake_fails(node, context)
    assert node.await_refusals() == [rule]


def test_revoked_certificate_is_refused_and_others_are_not(folder, tmp_path):
    serial = resigned(folder, tmp_path / "revoked.crt", -DAY, 9 * DAY)
    path = tmp_path / "ca.crl"
    revocation_list(folder, path, serial)
    with running_node(folder, tls={"crl": path}) as node:
        context = node.client(None)
        context.load_cert_chain(tmp_path / "revoked.crt", folder / "modality.key")
        handshake_fails(node, context)
        assert node.await_refusals() == ["tls_certificate_revoked"]
        assert echo_milliseconds(node) < 1000


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_1_1_is_refused(node):
    context = node.client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    handshake_fails(node, context)
    assert node.await_refusals() == ["tls_version"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_served_with_forward_secrecy(node, version):
    context = node.client()
    context.minimum_version = context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", node.port), 5)
    with context.wrap_socket(raw, server_hostname="localhost") as connection:
        suite = connection.cipher()[0]
        assert "GCM" in suite or "CHACHA20" in suite
        connection.sendall(request_pdu())
        assert read_pdu(connection)[:1] == b"\x02"


def test_suite_without_forward_secrecy_is_refused(node):
    context = node.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    handshake_fails(node, context)
    assert node.await_refusals() == ["tls_no_shared_cipher"]


# --- association refusals: the triple on the wire, and exactly one Refusal
