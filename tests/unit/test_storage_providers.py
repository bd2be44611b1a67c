"""Row 23: every provider of the key-encryption key, well, down, slow, with a wrong key and with a revoked one.

Whatever is wrong, nothing is stored, the error is one that is answered A700, and it is well again by itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from support.aws import amazon
from support.rooms import Rooms
from support.vault_server import TOKEN, TransitKey, VaultServer

from radnode.audit.events import Actor
from radnode.errors import ConfigError, KeyUnavailable, SealBroken, StorageError
from radnode.keyring import Keyring
from radnode.settings import KeysSettings
from radnode.storage import aws_kms
from radnode.storage.aws_kms import AwsKmsKeys
from radnode.storage.keys import KEY, KeyProvider, StudyKeys
from radnode.storage.local_keys import MAX_OUTPUT, CommandKeys, EnvironmentKeys, FileKeys, number_of
from radnode.storage.providers import key_provider
from radnode.storage.sealing import Kind
from radnode.storage.transit import VaultTransitKeys
from radnode.storage.vault import Vault

SECONDS = 0.5
ACTOR = Actor(user="tester")
ONE, TWO = "11" * 32, "22" * 32

Trouble = Callable[[], AbstractContextManager[None]]


@dataclass
class Subject:
    """One provider, and the troubles that may come over it."""

    provider: KeyProvider
    troubles: dict[str, Trouble] = field(default_factory=dict)


@contextmanager
def rewritten(path: Path, content: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(content)
    yield
    path.write_text(before)


@contextmanager
def away(path: Path) -> Iterator[None]:
    other = path.with_name("away")
    path.rename(other)
    yield
    other.rename(path)


@contextmanager
def having(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


@contextmanager
def files(folder: Path) -> Iterator[Subject]:
    path = folder / "keys" / "kek-0001.key"
    path.parent.mkdir(exist_ok=True)
    path.write_text(ONE)
    yield Subject(FileKeys(path.parent), {"down": lambda: away(path.parent), "wrong key": lambda: rewritten(path, TWO)})


@contextmanager
def environment(_folder: Path) -> Iterator[Subject]:
    provider = EnvironmentKeys("RADNODE_KEK_", {"RADNODE_KEK_0001": ONE, "RADNODE_KEK_note": "no key", "PATH": "/bin"})

    def variables(**values: str) -> AbstractContextManager[None]:
        return having(provider, "_environment", values)

    troubles = {"down": variables, "wrong key": lambda: variables(RADNODE_KEK_0001=TWO)}
    yield Subject(provider, troubles)


@contextmanager
def command(folder: Path) -> Iterator[Subject]:
    script, source = folder / "keys.sh", folder / "answer.sh"
    script.write_text(f"#!/bin/sh\n. {source}\n")
    script.chmod(0o700)
    source.write_text(f"echo 'kek-0001 {ONE}'\n")
    yield Subject(
        CommandKeys([str(script)], SECONDS),
        {
            "down": lambda: rewritten(source, "exit 3\n"),
            "slow": lambda: rewritten(source, f"sleep 30 & echo 'kek-0001 {ONE}'; sleep 30\n"),
            "wrong key": lambda: rewritten(source, f"echo 'kek-0001 {TWO}'\n"),
            "revoked": lambda: rewritten(source, f"echo 'kek-0002 {TWO}'\n"),
            "prints rubbish": lambda: rewritten(source, "echo Password:\n"),
            "prints without end": lambda: rewritten(source, "cat /dev/zero\n"),
            "not there": lambda: away(script),
        },
    )


@contextmanager
def vault(folder: Path) -> Iterator[Subject]:
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    with VaultServer() as server:
        key = server.keys["radnode"]

        @contextmanager
        def down() -> Iterator[None]:
            server.down()
            yield
            server.up()

        yield Subject(
            VaultTransitKeys(server.address, "radnode", SECONDS, token_file=token),
            {
                "down": down,
                "slow": lambda: having(server, "delay", 3 * SECONDS),
                "sealed": lambda: having(server, "sealed", True),
                "wrong key": lambda: having(server, "keys", {"radnode": TransitKey()}),
                "token revoked": lambda: having(server, "token", "another"),
                "key revoked": lambda: having(key, "min_decryption_version", 2),
                "no token": lambda: rewritten(token, "\x00"),
            },
        )


@pytest.fixture(scope="module")
def kms_server() -> Iterator[str]:
    with amazon() as url:
        yield url


@pytest.fixture
def kms(kms_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    return boto3.client("kms", endpoint_url=kms_server)


def new_key(kms: Any) -> str:
    arn: str = kms.create_key(Description="radnode")["KeyMetadata"]["Arn"]
    return arn


PROVIDERS = {"file": files, "env": environment, "command": command, "vault": vault}


@pytest.fixture(params=PROVIDERS)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    with PROVIDERS[request.param](tmp_path) as found:
        yield found


def test_key_comes_back_from_every_provider_bound_to_its_context(subject: Subject) -> None:
    provider = subject.provider
    kek, wrapped = provider.wrap(b"s" * KEY, b"context")
    assert kek == provider.keys()[-1]
    assert b"s" * 8 not in wrapped
    assert provider.unwrap(kek, wrapped, b"context") == b"s" * KEY
    for broken, context in ((wrapped, b"another"), (wrapped[:-4] + b"AAAA", b"context")):
        with pytest.raises(SealBroken):
            provider.unwrap(kek, broken, context)
    foreign = "kek-0001" if ":" in kek else "arn:aws:kms:x:y:key/z"
    with pytest.raises(KeyUnavailable, match="another provider"):
        provider.unwrap(foreign, wrapped, b"context")


def _known(provider: KeyProvider) -> list[str]:
    try:
        return provider.keys()
    except KeyUnavailable:
        return []


def test_provider_in_trouble_stores_nothing_and_mends_by_itself(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    rooms = Rooms(tmp_path / "rooms")
    kept = Vault(StudyKeys(rooms.engine, subject.provider), rooms.objects).put("before", Kind.INSTANCE, b"kept")
    held, keys = rooms.kept_objects(), rooms.count("study_keys")
    for name, trouble in subject.troubles.items():
        store = Vault(StudyKeys(rooms.engine, subject.provider), rooms.objects)
        started = time.monotonic()
        with trouble():
            with pytest.raises(StorageError) as caught:
                store.put("before", Kind.INSTANCE, b"never in the clear")
            assert caught.value.status == 0xA700, name
            with pytest.raises(StorageError):
                store.get(kept)
            if "kek-0002" not in _known(subject.provider):  # which is a new key: what is new may be sealed under it
                with pytest.raises(StorageError):
                    store.put("another", Kind.INSTANCE, b"never in the clear")
            assert time.monotonic() - started < 12 * SECONDS, name
            assert (rooms.kept_objects(), rooms.count("study_keys")) == (held, keys), name
        assert store.get(kept) == b"kept", name
    rooms.close()


def test_kms_wraps_under_the_key_that_the_alias_names_and_opens_under_the_older_one(kms: Any, kms_server: str) -> None:
    first, second = new_key(kms), new_key(kms)
    kms.create_alias(AliasName="alias/radnode-a", TargetKeyId=first)
    provider = AwsKmsKeys("alias/radnode-a", 2.0, region="eu-central-1", endpoint=kms_server)
    assert provider.keys() == [first]
    old = provider.wrap(b"s" * KEY, b"c")
    kms.update_alias(AliasName="alias/radnode-a", TargetKeyId=second)
    new = provider.wrap(b"s" * KEY, b"c")
    assert (old[0], new[0]) == (first, second)
    assert provider.unwrap(*old, b"c") == provider.unwrap(*new, b"c") == b"s" * KEY
    with pytest.raises(StorageError):
        provider.unwrap(*old, b"another context")
    with pytest.raises(StorageError):
        provider.unwrap(first, b"no ciphertext at all", b"c")


def test_kms_in_trouble_stores_nothing_and_mends_by_itself(kms: Any, kms_server: str, tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    key = new_key(kms)
    good = AwsKmsKeys(key, 2.0, region="eu-central-1", endpoint=kms_server)
    kept = Vault(StudyKeys(rooms.engine, good), rooms.objects).put("before", Kind.INSTANCE, b"kept")
    held = rooms.kept_objects()
    with VaultServer() as hanging:  # any server that does not answer in time
        hanging.delay = 3 * SECONDS
        for bad in (
            AwsKmsKeys(key, SECONDS, region="eu-central-1", endpoint="http://127.0.0.1:1"),
            AwsKmsKeys(key, SECONDS, region="eu-central-1", endpoint=hanging.address),
            AwsKmsKeys("alias/not-there", SECONDS, region="eu-central-1", endpoint=kms_server),
        ):
            with pytest.raises(KeyUnavailable) as caught:
                Vault(StudyKeys(rooms.engine, bad), rooms.objects).put("new", Kind.INSTANCE, b"x")
            assert caught.value.status == 0xA700
            assert (rooms.kept_objects(), rooms.count("study_keys")) == (held, 1)
    for code in ("DisabledException", "KMSInvalidStateException", "AccessDeniedException"):  # moto never says these
        with Stubber(good._client()) as answers:
            answers.add_client_error("encrypt", code, "who asked for what")
            with pytest.raises(KeyUnavailable, match=code) as caught:
                StudyKeys(rooms.engine, good).of_study("new")
            assert "who asked" not in str(caught.value)
    assert Vault(StudyKeys(rooms.engine, good), rooms.objects).get(kept) == b"kept"
    rooms.close()


def test_kms_key_is_retired_for_good_once_nothing_is_wrapped_under_it(
    kms: Any, kms_server: str, tmp_path: Path
) -> None:
    rooms = Rooms(tmp_path)
    first, second = new_key(kms), new_key(kms)
    kms.create_alias(AliasName="alias/radnode-b", TargetKeyId=first)
    provider = AwsKmsKeys("alias/radnode-b", 2.0, region="eu-central-1", endpoint=kms_server)
    study_keys = StudyKeys(rooms.engine, provider)
    secret = study_keys.of_study("a").secret
    kms.update_alias(AliasName="alias/radnode-b", TargetKeyId=second)
    ring = Keyring(rooms.stores, provider, study_keys)
    done = ring.rotate(ACTOR)
    assert (done.key, done.is_new, done.wrapped) == (second, False, 1)
    assert ring.retire(first, ACTOR)
    assert kms.describe_key(KeyId=first)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert StudyKeys(rooms.engine, provider).of_study("a").secret == secret
    rooms.close()


def test_numbers_of_keys_count() -> None:
    variables = {f"K_{number}": ONE for number in ("9999", "10000", "0002", "x")}
    provider = EnvironmentKeys("K_", variables)
    assert provider.keys() == ["kek-0002", "kek-9999", "kek-10000"]
    assert provider.wrap(b"s" * KEY, b"")[0] == "kek-10000"
    assert [number_of(name) for name in ("kek-0002", "kek-9999", "kek-10000")] == [2, 9999, 10000]


def test_new_file_is_the_next_number_whole_and_private(tmp_path: Path) -> None:
    (tmp_path / "kek-9999.key").write_text(ONE)
    provider = FileKeys(tmp_path)
    assert provider.create() == "kek-10000"
    assert provider.keys() == ["kek-9999", "kek-10000"]
    path = tmp_path / "kek-10000.key"
    assert (path.stat().st_mode & 0o777, len(bytes.fromhex(path.read_text()))) == (0o600, KEY)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["kek-10000.key", "kek-9999.key"]
    assert provider.destroy("kek-9999") and provider.destroy("kek-9999")
    assert provider.keys() == ["kek-10000"]


def test_command_leaves_no_process_behind_and_its_output_is_bounded(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    source = f"import os,time; open({str(note)!r},'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyUnavailable, match=r"over 0\.5 s"):
        CommandKeys([sys.executable, "-c", source], SECONDS).keys()
    assert not Path(f"/proc/{note.read_text()}").exists()
    lines = f"print('kek-0001 {ONE}\\n' * {MAX_OUTPUT // 70})"
    with pytest.raises(KeyUnavailable, match="printed over"):
        CommandKeys([sys.executable, "-c", lines], 20).keys()


def test_vault_version_is_rotated_and_trimmed(tmp_path: Path) -> None:
    with vault(tmp_path) as subject:
        provider = subject.provider
        old = provider.wrap(b"s" * KEY, b"c")
        assert provider.create() == "radnode:v2"
        assert provider.keys() == ["radnode:v1", "radnode:v2"]
        assert provider.unwrap(*old, b"c") == b"s" * KEY
        new = provider.wrap(b"t" * KEY, b"c")
        assert provider.destroy("radnode:v1") and provider.destroy("radnode:v1")
        with pytest.raises(StorageError):
            provider.unwrap(*old, b"c")
        assert provider.unwrap(*new, b"c") == b"t" * KEY


def test_provider_that_lacks_its_settings_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, word in (
        (KeysSettings(provider="command"), "command"),
        (KeysSettings(provider="aws-kms"), "aws_key"),
        (KeysSettings(provider="vault", vault_key="k"), "vault_address"),
        (KeysSettings(provider="vault", vault_key="k", vault_address="http://vault.example:8200"), "https"),
    ):
        with pytest.raises(ConfigError, match=word):
            key_provider(settings, tmp_path)
    monkeypatch.setattr("radnode.storage.providers.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="boto3"):
        key_provider(KeysSettings(provider="aws-kms", aws_key="alias/x"), tmp_path)
    assert "boto3" not in vars(aws_kms)  # imported at the first use alone
