"""TLS handshakes: who is refused, and what is agreed with the others."""

from __future__ import annotations

import datetime
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
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


def resigned(folder, target, begin: datetime.timedelta, end: datetime.timedelta):
    """Write the modality's certificate with other dates and return its serial number."""
    authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    old = x509.load_pem_x509_certificate((folder / "modality.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().issuer_name(old.issuer).subject_name(old.subject)
    builder = builder.public_key(old.public_key()).serial_number(x509.random_serial_number())
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    new = builder.not_valid_before(now + begin).not_valid_after(now + end).sign(authority_key, hashes.SHA256())
    target.write_bytes(new.public_bytes(serialization.Encoding.PEM))
    return new.serial_number


@pytest.mark.parametrize(
    ("begin", "end", "rule"),
    [(-20, -1, "tls_certificate_expired"), (1, 20, "tls_certificate_not_yet_valid")],
)
def test_certificate_outside_its_dates_is_refused(node, tmp_path, begin, end, rule):
    resigned(node.folder, tmp_path / "late.crt", datetime.timedelta(days=begin), datetime.timedelta(days=end))
    context = node.client(None)
    context.load_cert_chain(tmp_path / "late.crt", node.folder / "modality.key")
    handshake_fails(node, context)
    assert node.await_refusals() == [rule]


def test_revoked_certificate_is_refused_and_others_are_not(folder, tmp_path):
    authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    serial = resigned(folder, tmp_path / "revoked.crt", -datetime.timedelta(days=1), datetime.timedelta(days=9))
    revoked = x509.RevokedCertificateBuilder().serial_number(serial)
    revoked = revoked.revocation_date(now - datetime.timedelta(hours=1)).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    crl = (
        crl.last_update(now - datetime.timedelta(hours=1))
        .next_update(now + datetime.timedelta(days=1))
        .add_revoked_certificate(revoked)
    )
    path = tmp_path / "ca.crl"
    path.write_bytes(crl.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
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
