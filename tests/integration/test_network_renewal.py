"""Certificates and revocation lists that change while the listener runs."""

from __future__ import annotations

import datetime
import shutil
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from support.network import associated, command, request_pdu, running_node

from radnode.errors import ConfigError
from radnode.network.command_set import Command, Tag
from radnode.network.contexts import VERIFICATION
from radnode.network.renewal import CHECK_SECONDS

DAY = datetime.timedelta(days=1)


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A copy of the test PKI that the test may change."""
    return shutil.copytree(folder, tmp_path / "pki")


def revoke(folder: Path, *names: str, end: datetime.timedelta = DAY) -> Path:
    """Write the authority's list of the certificates of these names, valid until `end` from now."""
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now - 2 * DAY).next_update(now + end)
    for name in names:
        serial = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    path = folder / "ca.crl"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def until_looked_at() -> None:
    time.sleep(CHECK_SECONDS + 0.1)


def is_let_in(node, name: str = "modality") -> bool:
    """Say whether a handshake comes to its end for both sides, which in TLS 1.3 the answer shows."""
    try:
        with node.connect(name) as connection:
            connection.sendall(request_pdu())
            return bool(connection.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def served_serial(node) -> int:
    with node.connect() as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


def echoes(connection) -> bool:
    values = {Tag.AFFECTED_SOP_CLASS_UID: VERIFICATION, Tag.COMMAND_FIELD: int(Command.C_ECHO), Tag.MESSAGE_ID: 1}
    return command(connection, 1, values | {Tag.COMMAND_DATA_SET_TYPE: 0x0101}).ushort(Tag.STATUS) == 0


def test_certificate_revoked_while_the_node_runs_is_refused_and_open_associations_stay(own):
    with running_node(own, tls={"crl": revoke(own)}) as node, associated(node) as connection:
        revoke(own, "modality")
        until_looked_at()
        assert not is_let_in(node)
        assert node.await_refusals() == ["tls_certificate_revoked"]
        assert is_let_in(node, "admin")
        assert echoes(connection)
        assert node.renewals == [None]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"junk"), Path.unlink])
def test_revocation_list_that_cannot_be_read_lets_nobody_in_until_it_can(own, damage):
    with running_node(own, tls={"crl": revoke(own, "admin")}) as node:
        assert is_let_in(node)
        damage(own / "ca.crl")
        until_looked_at()
        assert not is_let_in(node)
        assert not is_let_in(node)
        assert node.await_refusals(2) == ["tls_files_unusable"] * 2
        [told] = node.renewals
        assert isinstance(told, ConfigError)
        assert node.refusals[0].advice == str(told)
        revoke(own, "admin")
        until_looked_at()
        assert is_let_in(node)
        assert not is_let_in(node, "admin")
        assert node.renewals == [told, None]


def test_expired_revocation_list_lets_nobody_in(own):
    with running_node(own, tls={"crl": revoke(own, end=-DAY)}) as node:
        assert not is_let_in(node)
        assert node.await_refusals() == ["tls_crl_expired"]


def test_revocation_list_of_another_authority_lets_nobody_in(own, other_folder, tmp_path):
    with running_node(own, tls={"crl": revoke(shutil.copytree(other_folder, tmp_path / "other"))}) as node:
        assert not is_let_in(node)
        [rule] = node.await_refusals()
        assert rule == "tls_crl_unusable"


def test_renewed_certificate_is_served_and_half_of_a_pair_is_not(own):
    with running_node(own) as node:
        old = served_serial(node)
        shutil.copyfile(own / "pacs.crt", own / "server.crt")
        until_looked_at()
        assert served_serial(node) == old
        assert served_serial(node) == old
        [told] = node.renewals
        assert "unencrypted key" in str(told)
        shutil.copyfile(own / "pacs.key", own / "server.key")
        until_looked_at()
        assert served_serial(node) != old
        assert node.renewals == [told, None]


def test_authority_that_is_replaced_counts_from_then_on(own, other_folder):
    with running_node(own) as node:
        shutil.copyfile(other_folder / "ca.crt", own / "new.crt")
        (own / "new.crt").replace(own / "ca.crt")
        until_looked_at()
        context = ssl.create_default_context(cafile=str(own / "ca.crt"))
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(own / "modality.crt", own / "modality.key")
        node.client = lambda _name: context
        assert not is_let_in(node)
        assert node.await_refusals() == ["tls_unknown_authority"]


def test_own_pair_that_is_unusable_is_no_excuse_for_an_old_revocation_list(own):
    with running_node(own, tls={"crl": revoke(own)}) as node:
        (own / "server.key").write_bytes(b"junk")
        revoke(own, "modality")
        until_looked_at()
        assert not is_let_in(node)
        assert node.await_refusals() == ["tls_files_unusable"]
