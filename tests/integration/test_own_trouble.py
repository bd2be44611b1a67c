"""Trouble of the node's own (disk, database, a dead thread): waited for, given back, never charged to an image."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from support import films
from support.films import file_bytes
from support.segments import extents

from radnode import roles, supervisor
from radnode.configuration import load_settings
from radnode.deliver.breaker import Breaker
from radnode.deliver.outbox import Courier
from radnode.detect.analyser import Batch, Task
from radnode.detect.worker import Compose, Worker
from radnode.errors import AuditError, DeliveryError, DestinationHolds, StoreUnavailable
from radnode.initialise import initialise
from radnode.jobs.database import transaction
from radnode.model import Analysis, JobKind, JobState, PeerIdentity, Reason, StoreRequest
from radnode.node import Node
from radnode.observe import logger
from radnode.part10 import file_header, read_file_meta
from radnode.results import Report
from radnode.settings import DestinationSettings
from radnode.storage.sealing import Kind
from radnode.supervisor import Supervisor

OWNER = "worker:1:test"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    pacs = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
    return Node(load_settings(initialise(tmp_path / "node", 2762, pacs)))


class GatedAnalyser:
    """Declines every image at the gate."""

    def task(self, name: str, header: Dataset, part10: bytes, _view_side: int = 0) -> Task:
        task = Task(name, header, part10, None)
        task.decline(Reason.UNSUPPORTED_MODALITY)
        return task

    def decode(self, _tasks: list[Task]) -> list[Batch]:
        return []


def receive(node: Node) -> None:
    part10 = file_bytes(films.fresh(films.CT[0]))
    meta = read_file_meta(part10)
    peer = PeerIdentity("MODALITY1", None, "127.0.0.1")
    uids = meta.sop_class_uid, meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid
    node.intake.receive(StoreRequest(peer, *uids), part10[meta.offset :])


def worker(node: Node, compose: Compose) -> Worker:
    return Worker(
        node.stores,
        results=node.results,
        rules=node.rules,
        analyser=GatedAnalyser(),  # type: ignore[arg-type]
        compose=compose,
        settings=node.settings.detect,
        actor=node.actor(),
        owner=OWNER,
        log=logger(),
    )


def report(_header: Dataset, _analysis: Analysis, _received: float, _predecessors: Sequence[Dataset]) -> Report:
    request = StoreRequest(PeerIdentity("RADNODE", None, "127.0.0.1"), "1.2", "2.25.1", "1.2", "1.2.840.10008.1.2.1")
    return Report("2.25.1", file_header(request) + b"report")


def objects(node: Node) -> list[bytes]:
    return list(extents(node.settings.data_dir / "objects"))


def job(node: Node, kind: JobKind = JobKind.ANALYSE) -> Any:
    [found] = [row for row in node.queue.listing(list(JobState)) if row.kind is kind]
    return found


def test_failed_commit_of_an_image_leaves_no_object_behind(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise AuditError("no")

    monkeypatch.setattr(node.audit, "append", refuse)
    with pytest.raises(AuditError):
        receive(node)
    assert objects(node) == []
    monkeypatch.undo()
    receive(node)
    assert len(objects(node)) == 1


def test_full_disk_costs_an_image_no_try_and_leaves_no_object(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(node)
    put, full = node.vault.put, True

    def sometimes(study: str, kind: Kind, plaintext: bytes) -> bytes:
        if full and kind is Kind.REPORT:
            raise StoreUnavailable("full")
        return put(study, kind, plaintext)

    monkeypatch.setattr(node.vault, "put", sometimes)
    work = worker(node, report)
    for _ in range(2 * node.settings.detect.max_attempts):
        assert work.step() == 1
        assert (job(node).state, job(node).attempts) == (JobState.READY, 0)
        assert len(objects(node)) == 1
        with node.engine.begin() as tx:
            tx.exec_driver_sql("UPDATE jobs SET due = 0")
    full = False
    work.step()
    assert job(node).state is JobState.DONE
    assert len(objects(node)) == 3


def test_image_that_ends_the_process_even_while_saying_failed_is_set_aside_unopened(node: Node) -> None:
    receive(node)

    def crash(*_: object) -> Report:
        raise SystemExit(1)

    for _ in range(node.settings.detect.max_attempts + 1):
        with pytest.raises(SystemExit):
            worker(node, crash).step()
        assert node.queue.release("worker") == 1
    worker(node, crash).step()
    assert (job(node).state, job(node).error) == (JobState.DEAD, "too_many_attempts")


def courier(node: Node, store: Callable[[bytes], object], kind: JobKind = JobKind.DELIVER) -> Courier:
    class Peer:
        def store_chunks(self, chunks: Iterable[bytes]) -> object:
            return store(b"".join(chunks))

    return Courier(
        node.settings.destinations[0],
        node.stores,
        kind=kind,
        breaker=Breaker(node.settings.destinations[0].name, kind, node.stores, node.settings.deliver, logger()),
        connect=lambda *_: contextlib.nullcontext(Peer()),
        settings=node.settings.deliver,
        actor=node.actor(),
        owner="deliver:1:test",
        log=logger(),
    )


def test_report_that_the_destination_holds_already_is_delivered(node: Node) -> None:
    def hold(_part10: bytes) -> object:
        raise DestinationHolds("0111")

    receive(node)
    worker(node, report).step()
    courier(node, hold).step()
    assert job(node, JobKind.DELIVER).state is JobState.DONE


def test_forwarded_image_of_a_name_that_the_destination_holds_already_is_an_alert(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    def hold(_part10: bytes) -> object:
        raise DestinationHolds("0111")

    receive(node)
    with transaction(node.engine) as tx:
        node.queue.add_all(tx, JobKind.FORWARD, [job(node).subject], "pacs")
    courier(node, hold, JobKind.FORWARD).step()
    assert job(node, JobKind.FORWARD).state is JobState.DONE
    with node.engine.connect() as tx:
        rows = tx.exec_driver_sql("SELECT entry FROM audit_entries ORDER BY rowid").scalars()
        entries = [json.loads(row) for row in rows]
    said = [(entry["event"].split()[-1], entry["detail"].get("rule")) for entry in entries[-2:]]
    assert said == [("alert", "image_held_already"), ("image_forwarded", None)]
    assert "image_held_already" in capsys.readouterr().out


def test_courier_outlives_a_database_that_cannot_be_read_and_gives_its_leases_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(node)
    worker(node, report).step()
    sent, troubles = [], iter([StoreUnavailable("locked")] * 2)
    due = node.queue.next_due

    def next_due(*arguments: Any) -> float | None:
        for trouble in troubles:
            raise trouble
        return due(*arguments)

    monkeypatch.setattr(node.queue, "next_due", next_due)
    monkeypatch.setattr("radnode.deliver.rounds.PAUSE_SECONDS", 0.01)
    unreadable = iter([StoreUnavailable("locked")])
    get_result = Courier._deliver

    def deliver(self: Courier, *arguments: Any) -> Any:
        for trouble in unreadable:
            raise trouble
        return get_result(self, *arguments)

    monkeypatch.setattr(Courier, "_deliver", deliver)
    stop, bold = threading.Event(), courier(node, sent.append)
    thread = threading.Thread(target=bold.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 10
    while job(node, JobKind.DELIVER).state is not JobState.DONE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stop.set()
    bold.ring()
    thread.join(5)
    [part10] = sent
    assert part10[read_file_meta(part10).offset :] == b"report"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_delivery_thread_that_ends_takes_its_process_along(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: Courier, _stop: threading.Event) -> None:
        raise ValueError

    monkeypatch.setattr(Courier, "run", die)
    monkeypatch.setattr(roles, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(DeliveryError, match="ended"):  # exit code 1; the supervisor starts the role again
        roles.deliver(node, threading.Event())


def test_zombie_supervisor_counts_as_dead(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w+b", buffering=0) as lock:
        sleeper = subprocess.Popen(["sleep", "60"])
        lock.write(str(sleeper.pid).encode())
        assert supervisor._alive(lock.fileno())
        sleeper.kill()
        deadline = time.monotonic() + 5
        while supervisor._alive(lock.fileno()):  # nobody has waited for it: it is a zombie
            assert time.monotonic() < deadline
        sleeper.wait()
        assert not supervisor._alive(lock.fileno())


def test_supervisor_outlives_a_database_it_cannot_write_and_restarts_the_role_once_leases_are_back(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parent = Supervisor(tmp_path / "node" / "radnode.toml", node, ["worker"])
    started: list[supervisor.Seat] = []
    monkeypatch.setattr(parent, "_start", started.append)
    seat = supervisor.Seat("worker", 0)
    parent._children[seat] = dead = supervisor._Child(seat, subprocess.Popen(["true"], stdin=subprocess.PIPE))
    dead.process.wait()
    release = node.queue.release

    def refuse(_role: str) -> int:
        raise StoreUnavailable("full")

    monkeypatch.setattr(node.queue, "release", refuse)
    parent._bury(dead, -9)
    parent._restart(seat)
    assert started == []
    monkeypatch.setattr(node.queue, "release", release)
    parent._restart(seat)
    assert started == [seat]
    assert parent._restart_at == {}


PUT = """
import sys
from pathlib import Path
from radnode.storage.segments import SegmentStore
writer = SegmentStore(Path(sys.argv[1])).create(1)
writer.room(1)
writer.advance(1)
writer.commit()
print("durable", flush=True)
sys.stdin.read()
"""


def test_object_that_a_dead_process_never_named_is_swept_and_that_of_a_living_one_stays(node: Node) -> None:
    receive(node)
    [kept] = objects(node)
    command = [sys.executable, "-c", PUT, str(node.settings.data_dir / "objects")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"durable\n"
        assert node.sweep() == 0  # whoever appends to it may be about to name it
        assert len(objects(node)) == 2
        other.kill()
        other.wait()
    assert node.sweep() == 1
    assert objects(node) == [kept]
    assert Node(node.settings).sweep() == 0
