"""Roles: who is named has these and no others, the owner everything; every command that reads wants one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from radnode import access
from radnode.access import READING, Caller, Task, caller, task_of, tasks
from radnode.assistant import RadiologistAssistant
from radnode.cli import cli
from radnode.configuration import load_settings
from radnode.errors import ConfigError, RefusedError
from radnode.initialise import initialise
from radnode.node import Node
from radnode.settings import AccessSettings
from radnode.storage.keys import read_key

OPEN = {
    "init",
    "serve",
    "check",
    "echo",
    "send",
    "rules",
    "models list",
    "models verify",
    "models sign",
    "models drift",
    "conformance",
    "audit verify",
}
EVERYTHING = frozenset(Task)


def somebody(user: str = "alice", groups: tuple[str, ...] = (), uid: int = 4711) -> Caller:
    return Caller(user, frozenset(groups), 4711, uid)


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return initialise(tmp_path_factory.mktemp("access") / "node", 2762, None)


@pytest.fixture
def stranger(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration under which who runs the tests has no role, of a node that has a trail."""
    Node(load_settings(config)).engine.dispose()
    monkeypatch.setenv("RADNODE_ACCESS__OWNER_IS_ADMINISTRATOR", "false")
    return config


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "-c", str(config)])


def events(config: Path, name: str) -> list[dict[str, object]]:
    trail = "".join(path.read_text() for path in (config.parent / "audit").glob("*.jsonl"))
    lines = [json.loads(line) for line in trail.splitlines()]
    return [line for line in lines if line["event"].endswith(f" {name}")]


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_wants_a_role_or_is_known_to_want_none(command: str) -> None:
    assert (task_of(command) is None) == bool({command, command.split(maxsplit=1)[0]} & OPEN)


@pytest.mark.parametrize("command", [command for command in commands() if task_of(command) is not None])
def test_every_command_that_wants_a_role_takes_a_reason(command: str) -> None:
    found: click.Command = cli
    for word in command.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word) or found
    assert {"--reason", "--break-glass", "--with-certificate"} <= {
        name for parameter in found.params for name in parameter.opts
    }


def test_roles_say_what_may_be_done(tmp_path: Path) -> None:
    settings = AccessSettings(
        administrators=("root2",), operators=("@technicians",), readers=("alice",), auditors=("bob", "@compliance")
    )
    expected = {
        somebody("alice"): {Task.READ_RESULTS, Task.OPERATE},
        somebody("bob"): {Task.READ_TRAIL},
        somebody("carol", ("compliance", "technicians")): {Task.READ_TRAIL, Task.OPERATE},
        somebody("root2"): EVERYTHING,
        somebody("nobody"): set(),
        somebody("compliance"): set(),  # a group is not a user
    }
    for who, may in expected.items():
        assert tasks(who, settings, tmp_path) == may, who


def test_owner_of_the_data_and_root_are_administrators_unless_named_or_the_settings_say_no(tmp_path: Path) -> None:
    os.chown(tmp_path, 4712, -1)
    named = AccessSettings(readers=("alice",))
    for uid, may in ((4712, EVERYTHING), (0, EVERYTHING), (4711, frozenset())):
        assert tasks(somebody("dave", uid=uid), named, tmp_path) == may
        assert tasks(somebody("dave", uid=uid), AccessSettings(owner_is_administrator=False), tmp_path) == frozenset()
    # By way of sudo she runs as the owner, and is a reader still.
    assert tasks(somebody("alice", uid=4712), named, tmp_path) == {Task.READ_RESULTS, Task.OPERATE}
    assert tasks(somebody("dave"), AccessSettings(), tmp_path / "not there") == frozenset()


def test_person_is_who_logged_in_and_never_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "SUDO_USER", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert caller().user != "somebody-else"
    assert caller().uid == os.getuid()
    monkeypatch.setattr(access, "_login_uid", lambda _uid: 1)
    assert (caller().user, caller().person, caller().uid) == ("daemon", 1, os.getuid())
    monkeypatch.setattr(access, "_login_uid", lambda _uid: 54321)
    assert caller() == Caller("uid 54321", frozenset(), 54321, os.getuid())


@pytest.mark.parametrize("command", [["results", "list"], ["audit", "tail"], ["jobs", "show", "1"], ["keys", "rotate"]])
def test_who_has_no_role_is_refused_with_4_and_the_refusal_is_audited(stranger: Path, command: list[str]) -> None:
    before = len(events(stranger, "access_refused"))
    refused = run(stranger, *command)
    assert isinstance(refused.exception, RefusedError)
    assert refused.exception.exit_code == 4
    assert "has no role to" in str(refused.exception)
    assert refused.output == ""
    entry = events(stranger, "access_refused")[before]
    assert entry["detail"] == {"command": " ".join(word for word in command if word != "1")}
    assert entry["actor"]["user"] == caller().user  # type: ignore[index]
    assert not list((stranger.parent / "keys").glob("kek-0002*"))


def test_glass_is_broken_for_reading_alone_with_a_reason_and_an_alert(stranger: Path) -> None:
    assert isinstance(run(stranger, "results", "list", "--break-glass").exception, ConfigError)
    assert run(stranger, "results", "list", "--break-glass", "--reason", "  ").exit_code == 2
    opened = run(stranger, "results", "list", "--break-glass", "--reason", "Ward 7, patient in shock")
    assert (opened.exit_code, opened.output) == (0, "no results\n")
    assert run(stranger, "audit", "tail", "--break-glass", "--reason", "stroke").exit_code == 0
    for command in (["keys", "rotate"], ["jobs", "show", "1"]):
        refused = run(stranger, *command, "--break-glass", "--reason", "stroke")
        assert isinstance(refused.exception, RefusedError)
    alerts = events(stranger, "glass_broken")
    assert [entry["detail"] for entry in alerts] == [{"command": "results list"}, {"command": "audit tail"}]
    assert {entry["outcome"] for entry in alerts} == {"serious"}
    assert {Task.READ_RESULTS, Task.READ_TRAIL} == READING


def test_reason_is_sealed_into_what_the_use_leaves_in_the_trail(config: Path) -> None:
    from radnode.audit.log import open_sealed  # noqa: PLC0415

    done = run(config, "keys", "list", "--reason", "audit of Mrs Example's complaint", "--json")
    assert json.loads(done.output)[-1]["state"] == "current"
    entry = events(config, "command_used")[-1]
    assert entry["detail"] == {"command": "keys list"}
    opened = open_sealed(entry, read_key(config.parent / "keys" / "audit.key"))
    assert opened == {"Reason": "audit of Mrs Example's complaint"}
    on_disk = b"".join(path.read_bytes() for path in config.parent.rglob("*") if path.is_file())
    assert b"Mrs Example" not in on_disk


def test_reason_may_be_demanded_and_is_one_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADNODE_ACCESS__REQUIRE_REASON", "true")
    refused = run(config, "results", "list")
    assert isinstance(refused.exception, ConfigError)
    assert "--reason" in str(refused.exception)
    assert run(config, "results", "list", "--reason", "follow-up").exit_code == 0
    for reason in ("two\nlines", "", "x" * 401):
        assert run(config, "results", "list", "--reason", reason).exit_code == 2


def test_python_interface_asks_for_the_same_roles(stranger: Path) -> None:
    with RadiologistAssistant(stranger) as assistant:
        for use in (assistant.retrieve_results, assistant.access_logs):
            with pytest.raises(RefusedError):
                use("P1")


def test_command_without_a_role_stays_open_to_everybody(stranger: Path) -> None:
    run(stranger, "results", "list")
    assert run(stranger, "models", "list").exit_code == 0
    assert run(stranger, "audit", "verify").exit_code == 0
    assert Node(load_settings(stranger)).settings.access.owner_is_administrator is False
