"""The test PKI: modes, names, purposes, and that it overwrites nothing."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from radnode import pki
from radnode.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent") / "pki"
    pki.make_test_pki(folder, ["node.example", "192.0.2.1"])
    return folder


def load(folder, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def test_modes(folder):
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("ca", *pki.LEAVES):
        assert (folder / f"{name}.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", pki.LEAVES)
def test_leaf(folder, name):
    leaf, authority = load(folder, name), load(folder, "ca")
    leaf.verify_directly_issued_by(authority)
    extensions = leaf.extensions
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == set(usages)
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    own = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert own == authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == pki.LEAF_DAYS


@pytest.mark.parametrize("name", ["server", "pacs"])
def test_names_of_those_that_are_called(folder, name):
    names = load(folder, name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "node.example"]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "::1", "192.0.2.1"]


def test_authority_signs_no_authorities(folder):
    constraints = load(folder, "ca").extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.path_length == 0


def test_overwrites_nothing(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="there already"):
        pki.make_test_pki(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_fingerprint_of_what_is_no_certificate(folder, tmp_path):
    assert len(pki.fingerprint(folder / "ca.crt")) == 64
    with pytest.raises(ConfigError, match="not a PEM"):
        pki.fingerprint(folder / "ca.key")
    with pytest.raises(ConfigError, match="cannot be read"):
        pki.fingerprint(tmp_path / "none.crt")
