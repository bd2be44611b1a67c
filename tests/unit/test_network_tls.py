"""TLS contexts: only what BCP 195 allows, and a sentence for every file that is wrong."""

from __future__ import annotations

import datetime
import ssl

import pytest

from radnode import pki
from radnode.errors import ConfigError
from radnode.network.tls import (
    certificate_expiry,
    certificate_sha256,
    client_context,
    handshake_refusal,
    matches_host,
    server_context,
)
from radnode.settings import Settings, TLSSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    return folder


def settings(folder, **changes) -> Settings:
    names = {"certificate": "server.crt", "key": "server.key", "ca": "ca.crt", **changes}
    return Settings(data_dir=folder, tls=TLSSettings(**names))


@pytest.mark.parametrize("make", [server_context, client_context])
def test_only_tls_1_2_and_1_3_with_forward_secrecy_and_aead(folder, make):
    context = make(settings(folder))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    for suite in context.get_ciphers():
        assert suite["aead"], suite["name"]
        assert suite["protocol"] == "TLSv1.3" or suite["name"].startswith("ECDHE-"), suite["name"]


def test_client_certificate_is_optional_only_when_the_settings_say_so(folder):
    assert server_context(settings(folder, require_client_certificate=False)).verify_mode == ssl.CERT_OPTIONAL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"certificate": "none.crt"}, "no file .*none.crt"),
        ({"key": "none.key"}, "no file .*none.key"),
        ({"ca": "none.crt"}, "no file .*none.crt"),
        ({"crl": "none.crl"}, "no file .*none.crl"),
        ({"key": "modality.key"}, "not a PEM certificate and its"),
        ({"certificate": "ca.key"}, "not a PEM certificate and its"),
        ({"ca": "server.key"}, "no PEM certificate of an authority"),
        ({"crl": "server.key"}, "not a PEM revocation list"),
        ({"crl": "ca.crt"}, "not a PEM revocation list"),
        ({"certificate": "."}, "cannot be read: IsADirectoryError"),
    ],
)
def test_file_that_is_wrong_is_a_sentence(folder, changes, message):
    for make in (server_context, client_context):
        with pytest.raises(ConfigError, match=message):
            make(settings(folder, **changes))


def test_encrypted_key_is_refused_without_asking_on_the_terminal(folder, tmp_path):
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "server.key").write_bytes(encrypted)
    with pytest.raises(ConfigError, match="unencrypted"):
        server_context(settings(folder, key=tmp_path / "server.key"))


def test_fingerprint_and_expiry(folder):
    der = ssl.PEM_cert_to_DER_cert((folder / "server.crt").read_text())
    assert certificate_sha256(der) == pki.fingerprint(folder / "server.crt")
    left = certificate_expiry(folder / "server.crt") - datetime.datetime.now(datetime.UTC)
    assert 823 < left.days < 826
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        certificate_expiry(folder / "server.key")


NAMES = {"subjectAltName": (("DNS", "Pacs.Example"), ("DNS", "*.ward.example"), ("IP Address", "::1"))}


@pytest.mark.parametrize(
    ("certificate", "host", "expected"),
    [
        (NAMES, "pacs.example", True),
        (NAMES, "PACS.EXAMPLE.", True),
        (NAMES, "a.ward.example", True),
        (NAMES, "a.b.ward.example", False),
        (NAMES, "ward.example", False),
        (NAMES, "0:0:0:0:0:0:0:1", True),
        (NAMES, "127.0.0.1", False),
        ({}, "anything", True),
        ({"subjectAltName": (("email", "a@b"),)}, "anything", True),
    ],
)
def test_host_is_checked_against_the_alternative_names(certificate, host, expected):
    assert matches_host(certificate, host) is expected


def test_unknown_handshake_failure_still_has_a_rule():
    rule, advice = handshake_refusal(ssl.SSLError(1, "whatever"))
    assert rule == "tls_malformed"
    assert advice
