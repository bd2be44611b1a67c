"""The roles of a node: what each of its processes does until it is told to stop."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from radnode.audit import events
from radnode.audit.events import Actor
from radnode.errors import ConfigError, DeliveryError, RadnodeError
from radnode.jobs.destinations import OUTGOING
from radnode.jobs.wake import Sleeper
from radnode.model import JobKind, PeerIdentity, Reception, Refusal, StoreRequest
from radnode.observe import Log, describe, logger

if TYPE_CHECKING:
    from radnode.intake import Receipt
    from radnode.network.hooks import AssociationEvent
    from radnode.node import Node
    from radnode.reception import InstanceReception

Role = Callable[["Node", threading.Event], None]
PATIENCE_SECONDS = 2.0  # how long a role sleeps when nobody rings
STANDBY_SECONDS = 0.5  # how often a second sequencer asks for the lock
PAUSE_SECONDS = 1.0  # after trouble of this node's own (database, disk)


class _Logged:
    """A reception that says in the log what was kept."""

    def __init__(self, reception: InstanceReception[Receipt], request: StoreRequest, log: Log) -> None:
        self.room = reception.room
        self.advance = reception.advance
        self.abandon = reception.abandon
        self._reception = reception
        self._request = request
        self._log = log
        self._began = time.monotonic()

    def finish(self) -> None:
        """Keep the instance."""
        receipt = self._reception.finish()
        self._log.info(
            "image_known" if receipt.known else "image_received",
            ae=self._request.peer.ae_title,
            patient=receipt.patient,
            study=receipt.study,
            instance=receipt.instance,
            bytes=receipt.size,
            status="0000",
            duration_ms=round((time.monotonic() - self._began) * 1000, 1),
        )


def intake(node: Node, stop: threading.Event) -> None:
    """Listen, and keep what peers send."""
    from radnode.network.server import Listener  # noqa: PLC0415 (only this role listens)
    from radnode.network.slots import Slots  # noqa: PLC0415

    log = logger()

    def receive(request: StoreRequest) -> Reception:
        return _Logged(node.intake.begin(request), request, log)

    def declined(peer: PeerIdentity, SOPInstanceUID: str | None, error: RadnodeError) -> None:
        log.warning(
            "image_refused",
            ae=peer.ae_title,
            address=peer.address,
            instance=SOPInstanceUID and node.pseudonyms.instance(SOPInstanceUID),
            status=f"{error.status:04X}",
            error=type(error).__name__,
            message=str(error),
        )

    def refused(refusal: Refusal) -> None:
        log.warning(
            "peer_refused",
            ae=refusal.ae_title,
            address=refusal.address,
            certificate=refusal.certificate,
            rule=refusal.rule,
            advice=refusal.advice,
        )
        if not refusal.is_alert:
            return
        actor = Actor(ae=refusal.ae_title, certificate=refusal.certificate, address=refusal.address)
        try:
            node.record(events.PEER_REFUSED, actor, rule=refusal.rule)
        except RadnodeError as error:
            log.error("audit_failed", **describe(error))

    def observe(event: AssociationEvent) -> None:
        log.info(
            f"association_{event.event}",
            ae=event.peer.ae_title,
            address=event.peer.address,
            association=event.association,
            count=event.stored,
            bytes=event.data_set_bytes,
        )

    def failed(name: str) -> None:
        log.error("image_refused", error=name, status="0110")

    def renewed(error: ConfigError | None) -> None:
        if error is None:
            log.info("certificates_read")
        else:
            log.error("certificates_unusable", message=str(error))

    _ = (
        node.vault,
        node.audit,
        node.pseudonyms,
        node.rules,
    )  # keys or rules that cannot be used stop the node before it listens
    try:
        analysable = node.analysable()
    except RadnodeError as error:  # trouble with a model refuses no image
        log.error("model_refused", message=str(error))
        analysable = None
    place, run = node.place, node.settings.data_dir / "run"
    hooks = receive, refused, observe, failed, declined, analysable, renewed
    slots = Slots(run / "associations.lock")
    listener = Listener(node.settings, *hooks, endpoints=place.endpoints, number=place.number, slots=slots)
    listener.start()
    log.info("listening", port=listener.bound_port, ae=node.settings.node.ae_title, count=place.processes)
    stop.wait()
    log.info("draining", count=listener.running)
    listener.drain(node.settings.node.drain_seconds)


def worker(node: Node, stop: threading.Event) -> None:
    """Analyse what was received."""
    from radnode.detect.worker import Worker  # noqa: PLC0415 (the one role that imports torch)

    if find_spec("torch") is None:
        raise ConfigError("The role worker needs torch: install radnode[detect], or serve --role intake,deliver here.")
    analyser = node.analyser()
    analyser.start()
    node.warm_reports()
    for name in dict.fromkeys(name for rule in node.settings.rules for name in rule.detect):
        loaded = analyser.load(name)
        if loaded is not None:
            logger().info("model_loaded", model=f"{name} {loaded.detector.identity.version}")
    this = owner("worker")
    work = Worker(
        node.stores,
        results=node.results,
        rules=node.rules,
        analyser=analyser,
        compose=node.compose,
        settings=node.settings.detect,
        actor=node.actor(),
        owner=this,
        log=logger(),
    )
    with Sleeper(node.settings.data_dir / "run", "worker") as sleeper:
        logger().info("ready")
        interrupted = False  # whether a step failed midway and its leases are still to be given back
        while not stop.is_set():
            try:
                if interrupted:
                    node.queue.release(this, counted=False)
                    interrupted = False
                if work.step():
                    continue
                due = node.queue.next_due(JobKind.ANALYSE)
            except RadnodeError as error:  # trouble of this node's own is waited for, never fatal
                logger().error("step_failed", **describe(error))
                interrupted = True
                stop.wait(PAUSE_SECONDS)
                continue
            sleeper.sleep(PATIENCE_SECONDS if due is None else min(PATIENCE_SECONDS, due - time.time()))


def deliver(node: Node, stop: threading.Event) -> None:
    """Bring reports and images to their destinations."""
    from radnode.deliver.breaker import Breaker  # noqa: PLC0415 (kept beside the other roles' imports)
    from radnode.deliver.lateness import Lateness  # noqa: PLC0415
    from radnode.deliver.outbox import Courier  # noqa: PLC0415

    breakers = {
        name: Breaker(name, node.stores, node.settings.deliver, logger().bind(destination=name))
        for name in (destination.name for destination in node.settings.destinations)
    }
    lateness = Lateness(list(breakers), node.stores, node.settings.deliver, node.actor(), logger())
    couriers = [
        Courier(
            destination,
            node.stores,
            kind=kind,
            breaker=breakers[destination.name],
            connect=node.connect,
            settings=node.settings.deliver,
            actor=node.actor(),
            owner=owner("deliver"),
            log=logger(),
        )
        for destination in node.settings.destinations
        for kind in OUTGOING
    ]
    threads = [threading.Thread(target=courier.run, args=(stop,), daemon=True) for courier in couriers]
    for thread in threads:
        thread.start()
    with Sleeper(node.settings.data_dir / "run", "deliver") as sleeper:
        logger().info("ready", count=len(breakers))
        while not stop.is_set():
            try:
                lateness.look()
            except RadnodeError as error:  # trouble of this node's own is waited for, never fatal
                logger().error("step_failed", **describe(error))
            if sleeper.sleep(PATIENCE_SECONDS):
                for courier in couriers:
                    courier.ring()
            if not all(thread.is_alive() for thread in threads) and not stop.is_set():
                raise DeliveryError("Delivery to a destination ended; `uncaught_error` in this log says where.")
    for courier in couriers:
        courier.ring()
    for thread in threads:
        thread.join(node.settings.node.drain_seconds)


def sequencer(node: Node, stop: threading.Event) -> None:
    """Turn audit rows into the trail; stand by while another process does."""
    trail = node.sequencer()
    while not trail.acquire(blocking=False):
        if stop.wait(STANDBY_SECONDS):
            return
    with Sleeper(node.settings.data_dir / "run", "sequencer") as sleeper:
        node.record(events.RECORDING_STARTED, node.actor(), pid=os.getpid())
        logger().info("ready", count=trail.size)
        trail.run(stop, sleeper.sleep)
        node.record(events.RECORDING_STOPPED, node.actor(), pid=os.getpid())
        trail.close()


ROLES: Mapping[str, Role] = {"intake": intake, "worker": worker, "deliver": deliver, "sequencer": sequencer}


def owner(role: str) -> str:
    """Name this process in its leases; the supervisor gives back what a dead one held."""
    return f"{role}:{os.getpid()}:{secrets.token_hex(4)}"
