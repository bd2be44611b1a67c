"""Nothing is missing from the trail: every command and every answer of DICOM leaves its event, and no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from pydicom.uid import generate_uid
from sqlalchemy import update
from support import films, rooms, toys
from support.audited import COMMANDS, SERVING, STOPPING, Use
from support.bad_input import ECHO, Target, raw_data_set
from support.certificates import DAY, resigned
from support.network import command, read_pdu, request_pdu
from support.node import NodeProcess, free_port, radnode, wait_for
from support.strangers import answer, scripted_pacs, tls

from radnode.cli import cli
from radnode.configuration import load_settings
from radnode.jobs.database import transaction
from radnode.jobs.schema import jobs
from radnode.model import JobKind, JobState
from radnode.network.command_set import Tag
from radnode.node import Node

SETTLE_SECONDS = 5.0
QUIET_SECONDS = 0.4  # an event too many would have come by then
MR = "1.2.840.10008.5.1.4.1.1.4"


def every_command(group: click.Group = cli, path: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from every_command(found, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def names(entries: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(entry["event"].split()[1] for entry in entries)


def follow(node: NodeProcess, before: int, expected: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what came into the trail since it had `before` entries; it must be these events."""

    def told() -> bool:
        return len(node.trail()) >= before + len(expected)

    if expected:
        wait_for(told, SETTLE_SECONDS, f"the trail says {expected}")
    time.sleep(QUIET_SECONDS)
    came = node.trail()[before:]
    assert names(came) == expected
    return came


# --- commands


def test_every_command_has_its_row_in_the_table() -> None:
    assert set(every_command()) == set(COMMANDS)


@dataclass
class Site:
    """A node that has worked, and what its commands are used on."""

    node: NodeProcess
    words: dict[str, str]

    def use(self, use: Use) -> list[dict[str, Any]]:
        before = len(self.node.trail())
        named = {"RADNODE_CONFIG": str(self.node.config)}  # `init` takes no -c
        told = radnode(*(word.format(**self.words) for word in use.arguments), environment=named)
        assert told.returncode == use.exit_code, told.stdout + told.stderr
        return follow(self.node, before, use.events)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("audited"), free_port()
    with NodeProcess(folder / "node", pacs_port=port) as node, scripted_pacs(port, node.folder / "pki"):
        node.start()
        films_of_two = [folder / "first.dcm", folder / "second.dcm"]
        for number, path in enumerate(films_of_two):
            path.write_bytes(films.file_bytes(films.fresh(films.MR, PatientID=f"AUDITED-{number}")))
        assert node.storescu(films_of_two).returncode == 0
        wait_for(lambda: len(node.trail("report_delivered")) == 2, 60, "both reports are delivered")
        assert node.stop() == 0
        node.start(role="intake", wait=("intake", "sequencer"))  # nothing goes on beside the commands from now on
        job, dead = _jobs(node)
        result = _first_result(node)
        film = folder / "third.dcm"
        film.write_bytes(films.file_bytes(films.fresh(films.MR)))
        words = {"film": film, "result": result, "job": job, "dead": dead, "fresh": folder / "fresh"}
        toys.trust(node.folder / "models")
        words["public"] = folder / "stranger.pub"
        words["public"].write_bytes((node.folder / "models" / "trusted" / "tests.pub").read_bytes())
        weights, how = toys.program(toys.Says(0.0)), {"percentiles": [0.0, 100.0], "threshold": 0.5}
        for number in "12":
            package = toys.package(folder / number, "toy", weights, version=f"{number}.0.0", **how)
            words[f"package {number}"] = package
        words["study"] = node.trail("image_received")[-1]["study"]
        yield Site(node, {name: str(word) for name, word in words.items()})


def _jobs(node: NodeProcess) -> tuple[int, int]:
    """Put two dead deliveries into the queue and return their numbers."""
    parts = Node(load_settings(node.config))
    with transaction(parts.engine) as tx:
        for subject in ("lost", "dead"):
            parts.queue.add(tx, JobKind.DELIVER, subject, "pacs")
        tx.execute(update(jobs).where(jobs.c.state == JobState.READY).values(state=JobState.DEAD))
    rows = {row.subject: row.job for row in parts.queue.listing([JobState.DEAD])}
    parts.engine.dispose()
    return rows["lost"], rows["dead"]


def _first_result(node: NodeProcess) -> str:
    return str(node.trail("image_analysed")[0]["detail"]["result"])


@pytest.mark.parametrize(("name", "use"), [(name, use) for name, uses in COMMANDS.items() for use in uses], ids=str)
def test_command_leaves_its_events_and_no_other(site: Site, name: str, use: Use) -> None:
    assert use.arguments[: len(name.split())] == tuple(name.split())
    came = site.use(use)
    assert {entry["outcome"] for entry in came} <= {"success"}
    people = [entry["actor"]["user"] for entry in came if entry["event"].split()[1] != "image_received"]
    assert None not in people


def test_node_that_starts_works_and_stops_leaves_its_events(site: Site) -> None:
    told = names(site.node.trail())
    assert set(SERVING) <= set(told)
    first = told.index("node_stopped")
    assert told[first : first + 2] == STOPPING


def test_setting_that_was_changed_is_told_at_the_next_start_once(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "node")
    for overrides, changed in (({}, []), ({"RADNODE_NODE__IDLE_SECONDS": "7"}, ["node"]), ({}, ["node"]), ({}, [])):
        before = len(node.trail())
        node._overrides = overrides
        node.start(role="deliver", wait=("sequencer",))
        assert node.stop() == 0
        told = [entry for entry in node.trail()[before:] if entry["event"] == "110113 config_changed"]
        assert [entry["detail"]["setting"] for entry in told] == changed


def test_certificate_files_that_change_are_told_once_while_the_node_runs_and_when_it_did_not(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", overrides={"RADNODE_NETWORK__LISTENERS": "2"}) as node:
        pki = node.folder / "pki"

        def told(expected: int) -> list[tuple[str, str, bool]]:
            def look() -> list[dict[str, Any]]:
                associate = bytes(request_pdu(calling="STRANGER"))  # a handshake makes a listener look
                assert answer(node.port, tls(pki / "ca.crt", pki / "admin.crt"), associate)[:1] == b"\x03"
                return node.trail("config_changed")

            entries = wait_for(lambda: [*look()] if len(look()) >= expected else [], 10, "the change is told")
            return [(it["detail"]["setting"], it["outcome"], "digest" in it["detail"]) for it in entries]

        node.start(role="intake", wait=("intake", "sequencer"))
        before = (pki / "server.crt").read_bytes()
        resigned(pki, pki / "new.crt", -DAY, DAY)
        (pki / "server.crt").write_bytes((pki / "new.crt").read_bytes())  # without its key: the pair does not fit
        assert told(1) == [("tls.certificate", "serious", True)]
        (pki / "server.crt").write_bytes(before)
        assert told(2)[1:] == [("tls.certificate", "success", True)]
        time.sleep(1.5)
        assert len(told(2)) == 2  # two listeners have read the files, and one has told of it
        assert node.stop() == 0
        (pki / "ca.crt").write_bytes((pki / "ca.crt").read_bytes() + b"\n")
        node.start(role="intake", wait=("intake", "sequencer"))
        assert told(3)[2:] == [("tls.ca", "success", True)]


# --- DICOM


def store(**changes: Any) -> Callable[[Target], int]:
    return lambda target: target.store(rooms.small(SOPInstanceUID=generate_uid()), **changes)


def store_differing(target: Target) -> int:
    return target.store(rooms.small(SOPInstanceUID=generate_uid()), AFFECTED_SOP_INSTANCE_UID=generate_uid())


def store_junk(target: Target) -> int:
    return target.store_bytes(b"junk" * 100, generate_uid())


def store_no_uid(target: Target) -> int:
    return target.store_bytes(raw_data_set("1.2.bad"), "1.2.bad")


def store_twice(target: Target) -> int:
    dataset = rooms.small(SOPInstanceUID=generate_uid())
    assert target.store(dataset) == 0
    return target.store(dataset)


def store_other_bytes(target: Target) -> int:
    dataset = rooms.small(SOPInstanceUID=generate_uid())
    assert target.store(dataset) == 0
    dataset.PatientComments = "other"
    return target.store(dataset)


def echo(target: Target) -> int:
    with target.connect() as connection:
        connection.sendall(request_pdu())
        assert read_pdu(connection)[:1] == b"\x02"
        return command(connection, 1, ECHO).ushort(Tag.STATUS)


def plain(target: Target) -> int:
    assert answer(target.port, None, b"noise") == b""
    return -1


def unknown_title(target: Target) -> int:
    assert answer(target.port, target.client(), bytes(request_pdu(calling="STRANGER")))[:1] == b"\x03"
    return -1


ANSWERS = {
    "C-ECHO": (echo, 0x0000, ()),  # moves no data
    "C-STORE of a new object": (store(), 0x0000, (("image_received", "C", "success"),)),
    "C-STORE of a known object": (
        store_twice,
        0x0000,
        (("image_received", "C", "success"), ("image_received", "R", "success")),
    ),
    "C-STORE of other bytes": (
        store_other_bytes,
        0x0111,
        (("image_received", "C", "success"), ("image_received", "U", "minor")),
    ),
    "C-STORE of another SOP class": (store(AFFECTED_SOP_CLASS_UID=MR), 0x0122, (("image_refused", "C", "minor"),)),
    "C-STORE of another instance": (store_differing, 0xA900, (("image_refused", "C", "minor"),)),
    "C-STORE of junk": (store_junk, 0xC000, (("image_refused", "C", "minor"),)),
    "C-STORE of no UID": (store_no_uid, 0x0117, (("image_refused", "C", "minor"),)),
    "C-FIND": (store(COMMAND_FIELD=0x0020), 0x0122, (("alert", "E", "minor"),)),
    "command that nobody knows": (store(COMMAND_FIELD=0x0199), 0x0211, (("alert", "E", "minor"),)),
    "noise": (plain, -1, (("peer_refused", "E", "minor"),)),
    "calling AE title that is unknown": (unknown_title, -1, (("peer_refused", "E", "minor"),)),
}


@pytest.mark.parametrize(("ask", "status", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_of_dicom_leaves_its_event(
    target: Target, ask: Callable[[Target], int], status: int, expected: tuple[tuple[str, str, str], ...]
) -> None:
    before = len(target.node.trail())
    assert ask(target) == status
    came = follow(target.node, before, tuple(name for name, _action, _outcome in expected))
    assert [(entry["action"], entry["outcome"]) for entry in came] == [row[1:] for row in expected]
    assert all(entry["actor"]["address"] == "127.0.0.1" for entry in came)
    refused = [entry for entry in came if entry["event"].endswith("image_refused")]
    assert all(entry["detail"]["status"] == f"{status:04X}" for entry in refused)


def test_objects_that_trouble_of_the_node_keeps_out_are_one_alert(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        node.start(role="intake", wait=("intake", "sequencer"))
        [key] = (node.folder / "keys").glob("kek-*.key")
        content = key.read_bytes()
        key.unlink()
        paths = [tmp_path / f"{number}.dcm" for number in range(3)]
        for path in paths:
            path.write_bytes(films.file_bytes(films.fresh(films.MR)))
        for path in paths:
            assert radnode("send", path, "-c", node.config).returncode == 1
        [alert] = wait_for(lambda: node.trail("alert"), 10, "the trouble is told")
        assert (alert["outcome"], alert["detail"]["rule"]) == ("serious", "images_not_kept")
        assert alert["detail"]["reason"] == "KeyUnavailable"
        assert node.trail("image_received") == node.trail("image_refused") == []
        key.write_bytes(content)
        key.chmod(0o600)
        assert radnode("send", paths[0], "-c", node.config).returncode == 0
