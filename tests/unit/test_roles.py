"""The roles: one that cannot do its work ends, so that the supervisor starts it again."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.recorder import Recorder
from support.rooms import Rooms

from radnode import roles
from radnode.audit import read
from radnode.audit.events import Actor
from radnode.configuration import load_settings
from radnode.deliver.outbox import Courier
from radnode.detect.worker import Worker
from radnode.errors import DeliveryError, DuplicateTransaction, StoreUnavailable, UnknownOperation
from radnode.initialise import initialise
from radnode.model import PeerIdentity
from radnode.node import Node
from radnode.settings import DeliverSettings, DestinationSettings, DetectSettings, NodeSettings


@pytest.fixture
def node(tmp_path: Path) -> Any:
    rooms = Rooms(tmp_path)
    destinations = [DestinationSettings(name=name, ae_title="P", host="h", port=1) for name in ("one", "two")]
    settings = SimpleNamespace(
        data_dir=tmp_path,
        destinations=destinations,
        peers=(),
        deliver=DeliverSettings(),
        node=NodeSettings(drain_seconds=5),
    )
    parts = {"stores": rooms.stores, "queue": rooms.queue, "connect": None, "unaddressed": list}
    yield SimpleNamespace(settings=settings, actor=lambda: Actor(user="t"), **parts)
    rooms.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_courier_that_dies_of_a_fault_ends_its_role(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def run(courier: Courier, _stop: threading.Event) -> None:
        if courier._destination.name == "one":
            raise ZeroDivisionError
        stop.wait(30)

    monkeypatch.setattr(Courier, "run", run)
    monkeypatch.setattr(roles, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(DeliveryError, match="uncaught_error"):
        roles.deliver(node, stop)
    stop.set()


def test_couriers_that_hang_share_one_deadline(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, over = threading.Event(), threading.Event()
    stop.set()
    monkeypatch.setattr(Courier, "run", lambda _courier, _stop: over.wait(30))
    node.settings.node = NodeSettings(drain_seconds=0.5)
    began = time.monotonic()
    roles.deliver(node, stop)
    over.set()
    assert 0.5 <= time.monotonic() - began < 1.5  # of four threads


def test_worker_sleeps_on_trouble_of_the_node_itself_and_goes_on(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, steps = threading.Event(), []

    def step(_worker: Worker) -> int:
        steps.append(1)
        if len(steps) == 3:
            stop.set()
        raise StoreUnavailable("The database cannot be read now.")

    monkeypatch.setattr(Worker, "step", step)
    monkeypatch.setattr(roles, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(roles.os, "nice", lambda _step: 0)  # it would be that of the tests
    analyser = SimpleNamespace(start=lambda: None, refresh=lambda: None)
    node.engine, node.settings.rules, node.settings.detect = node.stores.engine, (), DetectSettings()
    node.analyser, node.warm_reports, node.rules = (
        lambda _loading, ready: analyser,
        lambda: None,
        SimpleNamespace(detectors=()),
    )
    node.results = node.compose = node.completion = node.compose_series = node.compose_secondary = None
    roles.worker(node, stop)
    assert len(steps) == 3


def test_owner_of_a_lease_begins_with_its_role_and_is_never_the_same() -> None:
    assert roles.owner("worker").startswith("worker:")
    assert roles.owner("worker") != roles.owner("worker")


def test_request_about_commitments_that_is_not_served_is_an_alert_and_one_that_is_refused_is_a_request(
    tmp_path: Path,
) -> None:
    node = Node(load_settings(initialise(tmp_path / "node", 2762, None)))
    hooks = roles._commitment_hooks(node, Recorder())
    hooks.declined(PeerIdentity("CT1", "ab" * 32, "192.0.2.7"), UnknownOperation("Not yours."), 0x0124)
    hooks.declined(PeerIdentity("CT1", "ab" * 32, "192.0.2.7"), DuplicateTransaction("Again."), 0x0131)
    node.settle_trail()
    told = [(entry["event"].split()[1], entry["outcome"], entry["detail"]) for entry in read.entries(node.audit_folder)]
    assert told == [
        ("alert", "minor", {"reason": "UnknownOperation", "rule": "request_not_served", "status": "0124"}),
        ("commitment_requested", "minor", {"reason": "DuplicateTransaction", "status": "0131"}),
    ]
    node.engine.dispose()
