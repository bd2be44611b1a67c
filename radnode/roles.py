"""The roles of a node: what each of its processes does until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypedDict

from radnode import changes
from radnode.audit import events
from radnode.audit.events import Actor, AuditOutcome, AuditRecord
from radnode.errors import ConfigError, DeliveryError, RadnodeError, UnknownOperation
from radnode.jobs.database import transaction
from radnode.jobs.destinations import OUTGOING
from radnode.jobs.wake import Sleeper
from radnode.model import (
    CommitmentReport,
    CommitmentRequest,
    JobKind,
    PeerIdentity,
    Reception,
    Refusal,
    StoreRequest,
)
from radnode.observe import Log, describe, logger
from radnode.pressure import LOOK_SECONDS
from radnode.refusals import Refusals
from radnode.repository import Repository
from radnode.trail import Keeper

if TYPE_CHECKING:
    from radnode.deliver.commitment import Reporter
    from radnode.deliver.outbox import Courier
    from radnode.deliver.promises import Promises
    from radnode.detect.analyser import Analyser
    from radnode.detect.illustrating import ComposeSecondary
    from radnode.intake import Receipt
    from radnode.network.hooks import AssociationEvent, CommitmentHooks, ReportChannel
    from radnode.node import Node
    from radnode.reception import InstanceReception
    from radnode.results import Results
    from radnode.rules import Rules
    from radnode.settings import DetectSettings

Role = Callable[["Node", threading.Event], None]
PATIENCE_SECONDS = 2.0  # how long a role sleeps when nobody rings
STANDBY_SECONDS = 0.5  # how often a second sequencer asks for the lock
WORKER_NICE = 5  # steps behind the listeners: a modality waits for its answer, an analysis for its turn
PAUSE_SECONDS = 1.0  # after trouble of this node's own (database, disk)


class _Parts(TypedDict):
    """What both parts of the worker are made of."""

    results: Results
    rules: Rules
    analyser: Analyser
    settings: DetectSettings
    actor: Actor
    owner: str
    log: Log
    illustrate: ComposeSecondary


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
    refusals = Refusals(node.stores, node.actor(), log)

    def receive(request: StoreRequest) -> Reception:
        node.pressure.check()
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
        refusals.declined(peer, SOPInstanceUID, error)

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
        refusals.failed(name)

    def renewed(error: ConfigError | None) -> None:
        try:
            changes.note(node, error)
        except RadnodeError as trouble:
            log.error("audit_failed", **describe(trouble))
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
    listener = Listener(
        node.settings,
        *hooks,
        commitment=_commitment_hooks(node, log),
        endpoints=place.endpoints,
        number=place.number,
        slots=slots,
    )
    node.pressure.look()
    listener.start()
    log.info("listening", port=listener.bound_port, ae=node.settings.node.ae_title, count=place.processes)
    while not stop.wait(LOOK_SECONDS):
        node.pressure.look()
        refusals.look()
    log.info("draining", count=listener.running)
    listener.drain(node.settings.node.drain_seconds)


def _commitment_hooks(node: Node, log: Log) -> CommitmentHooks:
    """Return what this node does about Storage Commitment."""
    from radnode.network.hooks import CommitmentHooks  # noqa: PLC0415 (only this role listens)

    asked: dict[str, list[Promises]] = {}
    for destination in node.settings.destinations:
        if destination.commitment:
            asked.setdefault(destination.ae_title, []).append(node.promises(destination))

    def requested(peer: PeerIdentity, request: CommitmentRequest) -> None:
        node.commitments.accept(peer, request)
        log.info("commitment_requested", ae=peer.ae_title, address=peer.address, count=len(request.references))

    def report(peer: PeerIdentity, channel: ReportChannel) -> None:
        reporter = node.reporter(peer.ae_title, owner("intake"))
        reporter.step(lambda: contextlib.nullcontext(channel), channel.is_open)

    def reported(peer: PeerIdentity, report: CommitmentReport) -> None:
        if not sum(promises.reported(report) for promises in asked.get(peer.ae_title, ())):
            log.info("commitment_unmatched", ae=peer.ae_title, address=peer.address)

    def declined(peer: PeerIdentity, error: RadnodeError, status: int) -> None:
        fault = {"error": type(error).__name__, "message": str(error), "status": f"{status:04X}"}
        log.warning("commitment_refused", ae=peer.ae_title, address=peer.address, **fault)
        event, detail = events.COMMITMENT_REQUESTED, {"status": fault["status"], "reason": fault["error"]}
        if isinstance(error, UnknownOperation):  # not about instances
            event, detail = events.ALERT, {**detail, "rule": "request_not_served"}
        record = AuditRecord(event, Actor.of_peer(peer), outcome=AuditOutcome.MINOR, detail=detail)
        try:
            with transaction(node.engine) as tx:
                node.audit.record(tx, record)
        except RadnodeError as trouble:
            log.error("audit_failed", **describe(trouble))

    return CommitmentHooks(requested, report, reported, declined)


def worker(node: Node, stop: threading.Event) -> None:
    """Analyse what was received."""
    from radnode.detect.behind import Behind  # noqa: PLC0415 (this and what follows: the one role with torch)
    from radnode.detect.drift import DriftWatch  # noqa: PLC0415
    from radnode.detect.loading import Loading  # noqa: PLC0415
    from radnode.detect.series_worker import SeriesTouch, SeriesWorker  # noqa: PLC0415
    from radnode.detect.shadows import Shadows  # noqa: PLC0415
    from radnode.detect.worker import Worker  # noqa: PLC0415

    if node.rules.detectors and find_spec("torch") is None:
        raise ConfigError("The role worker needs torch: install radnode[detect], or serve --role intake,deliver here.")
    run = node.settings.data_dir / "run"
    os.nice(WORKER_NICE)
    analyser = node.analyser(
        Loading(run, node.settings.detect.load_seconds, logger()),
        ready=lambda model: logger().info("model_loaded", model=model),
    )
    analyser.start()
    if node.rules.detectors:
        node.warm_reports()
    for name in node.rules.detectors:
        analyser.load(name)
    drifting = DriftWatch(node.engine, analyser, node.rules.detectors, logger())
    this = owner("worker")
    parts = _Parts(
        results=node.results,
        rules=node.rules,
        analyser=analyser,
        settings=node.settings.detect,
        actor=node.actor(),
        owner=this,
        log=logger(),
        illustrate=node.compose_secondary,
    )
    detect, actor = node.settings.detect, node.actor()
    beside = Shadows(node.stores, analyser, actor, logger(), detect.timeout_seconds)
    beside_series = Shadows(node.stores, analyser, actor, logger(), detect.series_seconds)
    work = Worker(
        node.stores,
        compose=node.compose,
        whole_series=SeriesTouch(analyser, node.completion),
        shadows=beside,
        behind=Behind(),
        **parts,
    )
    series = SeriesWorker(
        node.stores,
        compose=node.compose_series,
        completion=node.completion,
        stopping=stop.is_set,
        shadows=beside_series,
        **parts,
    )
    with Sleeper(node.settings.data_dir / "run", "worker") as sleeper:
        logger().info("ready")
        interrupted = False  # whether a step failed midway and its leases are still to be given back
        while not stop.is_set():
            try:
                if interrupted:
                    work.settle()
                    node.queue.release(this, counted=False)
                    interrupted = False
                analyser.refresh()
                drifting.look()
                if work.step() + series.step():
                    continue
                due = min(filter(None, (node.queue.next_due(JobKind.ANALYSE), series.next_due())), default=None)
            except RadnodeError as error:  # trouble of this node's own is waited for, never fatal
                logger().error("step_failed", **describe(error))
                interrupted = True
                stop.wait(PAUSE_SECONDS)
                continue
            sleeper.sleep(PATIENCE_SECONDS if due is None else min(PATIENCE_SECONDS, due - time.time()))
        try:
            work.settle()
        except RadnodeError as error:  # its jobs are given back by the supervisor, or by the next start
            logger().error("step_failed", **describe(error))


def deliver(node: Node, stop: threading.Event) -> None:
    """Bring reports and images to their destinations."""
    from radnode.deliver.breaker import Breaker  # noqa: PLC0415 (kept beside the other roles' imports)
    from radnode.deliver.lateness import Lateness  # noqa: PLC0415
    from radnode.deliver.outbox import Courier  # noqa: PLC0415

    names = [destination.name for destination in node.settings.destinations]
    lateness = Lateness(
        names,
        node.stores,
        settings=node.settings.deliver,
        actor=node.actor(),
        log=logger(),
        unaddressed=node.unaddressed,
    )
    couriers = [
        Courier(
            destination,
            node.stores,
            kind=kind,
            breaker=Breaker(
                destination.name, kind, node.stores, node.settings.deliver, logger().bind(destination=destination.name)
            ),
            connect=node.connect,
            settings=node.settings.deliver,
            actor=node.actor(),
            owner=owner("deliver"),
            log=logger(),
            promises=node.promises(destination) if destination.commitment else None,
        )
        for destination in node.settings.destinations
        for kind in OUTGOING
    ]
    peers = [peer for peer in node.settings.peers if peer.commit is not None]
    reporters = [node.reporter(peer.ae_title, owner("deliver")) for peer in peers]
    threads = [threading.Thread(target=courier.run, args=(stop,), daemon=True) for courier in couriers]
    threads += [
        threading.Thread(target=reporter.run, args=(partial(node.call, peer), stop), daemon=True)
        for reporter, peer in zip(reporters, peers, strict=True)
    ]
    ringing: list[Courier | Reporter] = [*couriers, *reporters]
    for thread in threads:
        thread.start()
    with Sleeper(node.settings.data_dir / "run", "deliver") as sleeper:
        logger().info("ready", count=len(names))
        while not stop.is_set():
            try:
                lateness.look()
            except RadnodeError as error:  # trouble of this node's own is waited for, never fatal
                logger().error("step_failed", **describe(error))
            if sleeper.sleep(PATIENCE_SECONDS):
                for ringer in ringing:
                    ringer.ring()
            if not all(thread.is_alive() for thread in threads) and not stop.is_set():
                raise DeliveryError("Delivery to a destination ended; `uncaught_error` in this log says where.")
    for ringer in ringing:
        ringer.ring()
    deadline = time.monotonic() + node.settings.node.drain_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def sequencer(node: Node, stop: threading.Event) -> None:
    """Turn audit rows into the trail; stand by while another process does."""
    trail = node.sequencer()
    while not trail.acquire(blocking=False):
        if stop.wait(STANDBY_SECONDS):
            return
    served = _metrics(node)
    node.record(events.RECORDING_STARTED, node.actor(), pid=os.getpid())
    logger().info("ready", count=trail.size)
    syslog, finished = node.settings.audit.syslog, threading.Event()
    repository = None if syslog is None else Repository(node, syslog)
    keeper = Keeper(node, trail, repository)
    beside = [keeper.keep_anchored, *([] if repository is None else [repository.forwarder().run])]
    threads = [threading.Thread(target=work, args=(finished,), daemon=True) for work in beside]
    for thread in threads:
        thread.start()
    trail.run(stop, keeper.look)
    node.record(events.RECORDING_STOPPED, node.actor(), pid=os.getpid())
    trail.finish()
    finished.set()
    deadline = time.monotonic() + node.settings.node.drain_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    trail.release()
    served.close()


def _metrics(node: Node) -> contextlib.ExitStack:
    """Serve metrics where a port is set, until what is returned is closed; raises as `MetricsServer`."""
    served = contextlib.ExitStack()
    if node.settings.metrics.port:
        from radnode.metrics import MetricsServer  # noqa: PLC0415 (few nodes serve any)

        served.enter_context(MetricsServer(node))
    return served


ROLES: Mapping[str, Role] = {"intake": intake, "worker": worker, "deliver": deliver, "sequencer": sequencer}


def owner(role: str) -> str:
    """Name this process in its leases; the supervisor gives back what a dead one held."""
    return f"{role}:{os.getpid()}:{secrets.token_hex(4)}"
