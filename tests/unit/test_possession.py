"""`--with-certificate CERT KEY`: who holds a certificate has the roles bound to it; nobody has them without its key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from support.certificates import DAY, resigned, revocation_list

from radnode.access import Task, caller, tasks
from radnode.cli import cli
from radnode.configuration import load_settings
from radnode.errors import ConfigError, RadnodeError, RefusedError
from radnode.initialise import initialise
from radnode.node import Node
from radnode.pki import fingerprint, make_test_pki
from radnode.settings import AccessSettings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = initialise(tmp_path_factory.mktemp("possession") / "node", 2762, None)
    Node(load_settings(config)).engine.dispose()
    return config


@pytest.fixture
def config(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node whose auditor is the holder of admin.crt; who runs the tests owns it, and is an administrator."""
    monkeypatch.setenv("RADNODE_ACCESS__AUDITORS", '["san:ADMIN"]')
    shutil.copytree(made.parent, tmp_path / "node", ignore=shutil.ignore_patterns("models"))
    return tmp_path / "node" / made.name


def run(config: Path, *arguments: str | Path, given: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments), "-c", str(config)], input=given)


def pair(config: Path, name: str = "admin") -> tuple[str | Path, ...]:
    pki = config.parent / "pki"
    return "--with-certificate", pki / f"{name}.crt", pki / f"{name}.key"


def entries(config: Path, name: str) -> list[dict[str, Any]]:
    lines = [line for path in (config.parent / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [entry for entry in map(json.loads, lines) if entry["event"].endswith(f" {name}")]


def refusal(result: Result) -> str:
    assert isinstance(result.exception, RefusedError), result.output
    assert result.exception.exit_code == 4
    assert result.output == ""
    return str(result.exception)


def test_holder_of_a_certificate_has_its_roles_and_no_others_and_stands_in_the_trail(config: Path) -> None:
    held = fingerprint(config.parent / "pki" / "admin.crt")
    assert run(config, "audit", "tail", *pair(config)).exit_code == 0
    assert "has no role to read results" in refusal(run(config, "results", "list", *pair(config)))
    refusal(run(config, "keys", "rotate", *pair(config)))
    for name in ("trail_read", "access_refused"):
        assert {entry["actor"]["certificate"] for entry in entries(config, name)} == {held}
        assert {entry["actor"]["user"] for entry in entries(config, name)} == {caller().user}
    # Without it who runs this is the owner still; one that no role names gives nobody the owner's rights.
    assert run(config, "results", "list").exit_code == 0
    refusal(run(config, "audit", "tail", *pair(config, "modality")))


def test_key_may_come_by_standard_input_and_every_entry_of_the_use_has_the_certificate(config: Path) -> None:
    pki = config.parent / "pki"
    key = (pki / "admin.key").read_bytes()
    done = run(config, "audit", "report", "--activity", "--with-certificate", pki / "admin.crt", "-", given=key)
    assert done.exit_code == 0, done.exception
    assert entries(config, "trail_read")[-1]["actor"]["certificate"] == fingerprint(pki / "admin.crt")
    told = run(config, "audit", "report", "--activity", *pair(config)).output
    assert f"with the certificate {fingerprint(pki / 'admin.crt')[:16]}" in told


def test_certificate_without_its_key_is_nobodys(config: Path) -> None:
    pki = config.parent / "pki"
    for key in (pki / "modality.key", pki / "admin.crt", config):
        done = run(config, "audit", "tail", "--with-certificate", pki / "admin.crt", key)
        assert isinstance(done.exception, ConfigError)
        assert "are no PEM pair" in str(done.exception)
    missing = run(config, "audit", "tail", "--with-certificate", pki / "no.crt", pki / "admin.key")
    assert isinstance(missing.exception, ConfigError)
    assert run(config, "audit", "tail", "--with-certificate", pki / "admin.crt").exit_code == 2
    assert entries(config, "trail_read") == []


@pytest.mark.parametrize("bad", ["foreign", "expired", "revoked"])
def test_certificate_that_a_peer_would_be_turned_away_with_gives_no_role_and_the_try_is_audited(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    pki = config.parent / "pki"
    monkeypatch.setenv("RADNODE_ACCESS__AUDITORS", '["san:admin", "san:modality"]')
    match bad:
        case "foreign":
            make_test_pki(tmp_path / "other")
            certificate, words = tmp_path / "other" / "admin.crt", "Sign the peer's certificate"
        case "expired":
            certificate, words = tmp_path / "old.crt", "Renew"
            resigned(pki, certificate, -2 * DAY, -DAY)
        case _:
            certificate, words = pki / "admin.crt", "revocation list"
            serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
            revocation_list(pki, pki / "ca.crl", serial)
            monkeypatch.setenv("RADNODE_TLS__CRL", "pki/ca.crl")
    done = run(config, "audit", "tail", "--with-certificate", certificate, certificate.with_suffix(".key"))
    assert words in refusal(done)
    assert entries(config, "access_refused")[-1]["detail"] == {"command": "audit tail"}


def test_roles_name_a_certificate_by_fingerprint_or_by_alternative_name(tmp_path: Path) -> None:
    digits = "0A" * 32
    settings = AccessSettings(readers=(f"sha256:{':'.join(['0a'] * 32).upper()}",), auditors=("san:Erika@Example.ORG",))
    holder = caller().holding(digits.lower(), ["erika@example.org"])
    assert tasks(holder, settings, tmp_path) == {Task.READ_RESULTS, Task.OPERATE, Task.READ_TRAIL}
    assert tasks(caller().holding("0b" * 32, ["other"]), settings, tmp_path) == frozenset()
    # A user of that name is not the certificate, nor the other way round.
    assert tasks(caller().holding("0b" * 32, ["root"]), AccessSettings(readers=("root",)), tmp_path) == frozenset()
    for wrong in ("sha256:12", "sha256:" + "zz" * 32):
        with pytest.raises(ValueError, match="64 hex digits"):
            AccessSettings(readers=(wrong,))


def test_glass_is_broken_by_the_holder_of_a_certificate_by_name(config: Path) -> None:
    done = run(config, "results", "list", *pair(config), "--break-glass", "--reason", "stroke")
    assert (done.exit_code, done.exception) == (0, None)
    [alert] = entries(config, "glass_broken")
    assert alert["actor"]["certificate"] == fingerprint(config.parent / "pki" / "admin.crt")


def test_key_that_is_given_is_in_no_message(config: Path) -> None:
    pki = config.parent / "pki"
    done = run(config, "audit", "tail", "--with-certificate", pki / "modality.crt", "-", given=b"secret-key-material")
    assert isinstance(done.exception, RadnodeError)
    assert "secret" not in str(done.exception) + done.output
