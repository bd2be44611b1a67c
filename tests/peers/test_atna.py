"""The trail as DICOM audit messages in a real rsyslog: valid, all of them, in order, and once, whatever goes down."""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import signal
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from support import films
from support.node import NodeProcess, free_port, wait_for
from support.repository import Rsyslog, complaints
from support.strangers import answer, scripted_pacs

from radnode.audit import atna, events
from radnode.audit.events import Actor
from radnode.audit.syslog import deliver, frame
from radnode.audit.verify import verify
from radnode.configuration import load_settings
from radnode.errors import AuditError

HOSTILE = '\r\n<x a="&">\x00\x1b\ud800 ]]>%s\u2028山田 " '
AWAY_SECONDS = float(os.environ.get("AUDIT_AWAY_SECONDS", "2"))  # see docs/testing.md
PSEUDONYM = "0123456789abcdef" * 2
SOURCE = atna.Source("RADNODE", "node.hospital.example", "urn:radnode:audit")


def entries() -> Iterator[dict]:
    """An entry of every event, by every kind of actor, plain and hostile."""
    actors = [
        Actor(ae="MODALITY1", certificate="ab" * 32, address="192.0.2.7"),
        Actor(address="2001:db8::7"),
        Actor(ae="RADNODE", user="radnode"),
        Actor(user=HOSTILE),
        Actor(user="radnode", certificate="ab" * 32),
        Actor(ae=HOSTILE),
        Actor(),
    ]
    details = [
        {},
        {"sop_class": "1.2.840.10008.5.1.4.1.1.2", "bytes": 7, "destination": "pacs", "setting": "tls.ca"},
        dict.fromkeys(sorted(events.DETAIL_KEYS), HOSTILE),
    ]
    numbers = itertools.count(1)
    for event, actor, detail, outcome in itertools.product(
        events.CATALOGUE.values(), actors, details, ("success", "serious")
    ):
        for patient, study in ((None, None), (PSEUDONYM, None), (PSEUDONYM, PSEUDONYM)):
            yield {
                "seq": next(numbers),
                "timestamp": "2026-11-23T14:00:00.000000Z",
                "event": event.label,
                "action": event.action.value,
                "outcome": outcome,
                "actor": {name: getattr(actor, name) for name in Actor.__slots__},
                "patient": patient,
                "study": study,
                "instance": study,
                "detail": detail,
                "sealed": None,
            }


def test_message_of_every_event_is_valid_against_both_schemas_whatever_stands_in_it(tmp_path: Path) -> None:
    identities = [None, {"PatientID": HOSTILE, "StudyInstanceUID": "1.2.3", "SOPInstanceUID": "not a UID"}]
    messages = [atna.message(entry, SOURCE, identities[number % 2]).decode() for number, entry in enumerate(entries())]
    assert len(messages) > 2000
    assert complaints(messages, tmp_path / "messages") == []


def test_security_alert_says_what_happened() -> None:
    [entry] = [
        entry
        for entry in entries()
        if entry["event"].endswith("config_changed") and entry["detail"].get("bytes") and not entry["patient"]
    ][:1]
    root = fromstring(atna.message(entry, SOURCE))  # noqa: S314 (our own)
    [detail] = root.findall(".//ParticipantObjectDetail[@type='Alert Description']")
    assert base64.b64decode(detail.get("value", "")).decode().startswith("config changed: ")
    assert root.find(".//EventTypeCode").get("csd-code") == "110129"


def test_real_identity_stands_in_a_message_only_where_it_is_asked_for() -> None:
    entry = next(entry for entry in entries() if entry["event"].endswith("image_received") and entry["study"])
    identity = {"PatientID": "4711", "StudyInstanceUID": "1.2.3"}
    assert "4711" not in atna.message(entry, SOURCE).decode()
    assert f"2.25.{int(PSEUDONYM, 16)}" in atna.message(entry, SOURCE).decode()
    real = atna.message(entry, SOURCE, identity).decode()
    assert 'ParticipantObjectID="4711"' in real
    assert 'UID="1.2.3"' in real
    assert PSEUDONYM not in real


# --- a node and its repository


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[NodeProcess]:
    folder, pacs_port = tmp_path_factory.mktemp("atna"), free_port()
    with NodeProcess(folder / "node", pacs_port=pacs_port) as node, scripted_pacs(pacs_port, node.folder / "pki"):
        syslog = f'[audit]\nsyslog = {{ host = "127.0.0.1", port = {port} }}\n'
        text = node.config.read_text().replace("[audit]\n", syslog).replace("anchor = []", 'anchor = ["syslog"]')
        metrics = text.rindex("port = 0")
        node.config.write_text(f"{text[:metrics]}port = {free_port()}\n")
        yield node


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, node: NodeProcess, port: int) -> Iterator[Rsyslog]:
    repository = Rsyslog(tmp_path_factory.mktemp("rsyslog") / "rsyslog", port, node.folder / "pki")
    yield repository
    repository.stop()


def sequences(repository: Rsyslog) -> list[int]:
    return [message.sequence for message in repository.received()]


def has_all(node: NodeProcess, repository: Rsyslog) -> bool:
    return sequences(repository)[-1:] == [len(node.trail())]


def send(node: NodeProcess, folder: Path, count: int) -> None:
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for path in paths:
        path.write_bytes(films.file_bytes(films.fresh(films.MR, PatientID="ATNA-4711")))
    assert node.storescu(paths).returncode == 0


def test_rsyslog_receives_every_event_of_a_whole_run_once_in_order_and_valid(
    node: NodeProcess, repository: Rsyslog, tmp_path: Path
) -> None:
    repository.start()
    node.start()
    send(node, tmp_path, 2)
    wait_for(lambda: len(node.trail("report_delivered")) == 2, 60, "the reports are delivered")
    result = node.results()[0]["id"]
    for use in (("results", "show", result), ("audit", "tail"), ("jobs", "pause"), ("jobs", "resume")):
        assert node.run(*use).returncode == 0
    assert answer(node.port, None, b"noise") == b""
    wait_for(lambda: node.trail("peer_refused"), 5, "the stranger is in the trail")
    wait_for(lambda: has_all(node, repository), 15, "rsyslog has everything")
    received = repository.received()
    assert [message.sequence for message in received] == list(range(1, len(node.trail()) + 1))
    assert complaints([message.xml for message in received], tmp_path / "messages") == []
    assert "ATNA-4711" not in "".join(message.xml for message in received)
    for entry, message in zip(node.trail(), received, strict=True):
        assert message.timestamp == entry["timestamp"]
        assert message.priority == 80 + {"success": 5, "minor": 4, "serious": 3}[entry["outcome"]]
        event = fromstring(message.xml).find("EventIdentification/EventID")  # noqa: S314 (our own)
        assert event is not None
        assert event.get("csd-code") == entry["event"].split()[0]


def gauge(node: NodeProcess, name: str) -> float:
    port = load_settings(node.config).metrics.port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.partition(" ")[0].partition("{")[0] == name]
    return float(value)


def check(node: NodeProcess) -> str:
    [line] = [line for line in node.run("check").stdout.splitlines() if "audit repository" in line]
    return line


def test_check_says_that_the_repository_has_everything(node: NodeProcess, repository: Rsyslog, port: int) -> None:
    assert check(node) == f"ok   audit repository: 127.0.0.1:{port} takes connections; it has every entry"


def test_what_happens_while_rsyslog_is_away_comes_afterwards_once_and_in_order(
    node: NodeProcess, repository: Rsyslog, tmp_path: Path
) -> None:
    before, kept, sent = len(node.trail()), len(node.trail("image_received")), 0
    repository.stop()
    end = time.monotonic() + AWAY_SECONDS
    while sent < 3 or time.monotonic() < end:
        send(node, tmp_path, 1)
        sent += 1
        time.sleep(min(5.0, AWAY_SECONDS / 3))
    wait_for(lambda: len(node.trail("image_received")) == kept + sent, 10, "the images are in the trail")
    wait_for(lambda: [line for line in node.log() if line["event"] == "repository_away"], 20, "the log says so")
    assert "BAD  audit repository: The audit repository 127.0.0.1" in check(node)
    assert "entries wait for it" in check(node)
    assert len(sequences(repository)) == before
    assert gauge(node, "radnode_audit_repository_waiting_entries") == len(node.trail()) - before
    assert gauge(node, "radnode_audit_repository_delay_seconds") >= AWAY_SECONDS
    assert gauge(node, "radnode_audit_trail_entries") == len(node.trail())
    repository.start()
    wait_for(lambda: has_all(node, repository), 60, "rsyslog has everything")
    assert sequences(repository) == list(range(1, len(node.trail()) + 1))
    wait_for(lambda: [line for line in node.log() if line["event"] == "repository_back"], 5, "the log says so")
    wait_for(lambda: gauge(node, "radnode_audit_repository_waiting_entries") == 0, 10, "the cursor has moved")
    assert gauge(node, "radnode_audit_repository_delay_seconds") == 0


def test_kill_of_the_sequencer_and_of_rsyslog_loses_nothing_and_a_repeated_entry_keeps_its_number(
    node: NodeProcess, repository: Rsyslog, tmp_path: Path
) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        send(node, folder, 2)
        for pid in node.pids("sequencer"):
            os.kill(pid, signal.SIGKILL)
        repository.stop(kill=number == 1)
        repository.start()
    wait_for(lambda: has_all(node, repository), 60, "rsyslog has everything")
    got = sequences(repository)
    assert set(got) == set(range(1, len(node.trail()) + 1))
    assert list(dict.fromkeys(got)) == sorted(set(got))


def sequencer_is_back(node: NodeProcess) -> bool:
    said = [line["event"] for line in node.log() if "sequencer" in (line.get("role"), line.get("rule"))]
    return [event for event in said if event in {"ready", "role_died"}][-1] == "ready"


def test_last_events_of_a_node_that_stops_are_sent(node: NodeProcess, repository: Rsyslog) -> None:
    wait_for(lambda: sequencer_is_back(node), 60, "the killed sequencer is back")
    assert node.stop() == 0
    wait_for(lambda: has_all(node, repository), 15, "rsyslog has written what it has taken")
    assert "Audit Recording Stopped" in repository.received()[-1].xml


def test_repository_is_an_anchor_that_a_trail_which_was_cut_back_differs_from(
    node: NodeProcess, repository: Rsyslog, tmp_path: Path
) -> None:
    (tmp_path / "syslog.notes").write_bytes(repository.notes())
    trail, key = node.folder / "audit", node.folder / "keys" / "audit-sign.pub"
    assert verify(trail, key, None, [tmp_path]).ok
    cut = shutil.copytree(trail, tmp_path / "cut")
    segment = min(cut.glob("trail-*"))
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-1]))
    shutil.rmtree(cut / "checkpoints")
    found = verify(cut, key, None, [tmp_path])
    assert (found.ok, found.first_bad) == (False, len(node.trail()))


# --- receivers that only seem to take it


def _behave(server: socket.socket, context: ssl.SSLContext, how: str) -> None:
    raw, _ = server.accept()
    with context.wrap_socket(raw, server_side=True) as connection:
        if how == "reads all":
            while connection.recv(65536):
                pass
        elif how == "reads some":
            connection.recv(10)
        elif how == "never closes":
            threading.Event().wait(3)


@pytest.mark.parametrize(("how", "taken"), [("reads all", True), ("reads some", False), ("never closes", False)])
def test_batch_counts_as_taken_only_when_all_of_it_was_read(node: NodeProcess, how: str, taken: bool) -> None:
    pki = node.folder / "pki"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki / "pacs.crt", pki / "pacs.key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_behave, args=(server, context, how))
        thread.start()
        client = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        client.check_hostname = False
        connection = client.wrap_socket(socket.create_connection(server.getsockname(), 5))
        frames = [
            frame(b"x" * 4000, seq=number, timestamp="-", outcome="success", host="h") for number in range(1, 200)
        ]
        if taken:
            deliver(connection, frames, 5)
        else:
            with pytest.raises(AuditError):
                deliver(connection, frames, 1)
        thread.join()


def test_images_are_refused_while_the_repository_is_away_where_that_is_wanted(tmp_path: Path) -> None:
    port = free_port()
    with NodeProcess(tmp_path / "node") as node:
        policy = f'{{ host = "127.0.0.1", port = {port}, on_failure = "refuse", refuse_after_seconds = 1 }}'
        node.config.write_text(node.config.read_text().replace("[audit]\n", f"[audit]\nsyslog = {policy}\n"))
        node.start(role="intake", wait=("intake", "sequencer"))
        path = tmp_path / "film.dcm"
        path.write_bytes(films.file_bytes(films.fresh(films.MR)))
        wait_for(lambda: "A700" in node.run("send", path).stderr, 20, "images are refused")
        assert "BAD  holds: Images are refused, because the audit repository is away" in node.run("check").stdout
        with Rsyslog(tmp_path / "rsyslog", port, node.folder / "pki") as repository:
            wait_for(lambda: node.run("send", path).returncode == 0, 40, "images are taken again")
            changes = [entry["detail"] for entry in node.trail("alert")]
            assert [(it["change"], it["rule"]) for it in changes] == [
                ("refusing_images", "repository_away"),
                ("accepting_images", "repository_away"),
            ]
            wait_for(lambda: has_all(node, repository), 10, "rsyslog has everything")
