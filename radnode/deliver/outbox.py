"""The outbox: reports and forwarded images on their way to their destinations.

One thread a destination and kind, so that nothing waits behind a destination that is dead, and no report behind a study
that is forwarded. An object is delivered when the destination answered the C-STORE with success, or, where it is to
commit (`radnode.deliver.promises`), once it has. The ends of jobs and their audit entries are one commit for several
that were answered shortly after each other: a crash before it sends those again, under the same UIDs. An unavailable
destination is tried again with growing pauses, without end (`radnode.deliver.breaker`); a refusal for good makes a dead
letter.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from radnode.audit import events
from radnode.audit.events import MAX_DETAIL_LENGTH, Actor, AuditRecord
from radnode.deliver.breaker import Breaker
from radnode.deliver.cargo import WORDS, Subject, opened, subject_of
from radnode.deliver.patience import pause
from radnode.deliver.promises import CommittingPeer, Promises
from radnode.deliver.rounds import Rounds
from radnode.errors import (
    DeliveryError,
    DestinationHolds,
    DestinationRefused,
    MalformedDataSet,
    NotFoundError,
    RadnodeError,
    SealBroken,
    StaleLease,
)
from radnode.failpoints import reach
from radnode.jobs.database import reading, transaction
from radnode.model import JobKind, Lease
from radnode.part10 import FileMeta
from radnode.settings import DeliverSettings, DestinationSettings
from radnode.stores import Stores

BATCH = 32  # objects an association
IDLE_SECONDS = 5.0
LEASE_SECONDS = 86_400.0  # a batch of the largest objects over a slow line; the leases of dead processes are given back
SETTLE_SECONDS = 0.25  # how long an answer may wait for others before it is committed
HELD_ADVICE = "See that the object of this UID there is the same image: the destination did not take this one (0111)."

Offers = Iterable[tuple[str, str]]


class StoragePeer(CommittingPeer, Protocol):
    """An open association with a Storage SCP."""

    def store_chunks(self, chunks: Iterable[bytes]) -> object:
        """Send one object; DestinationUnavailable or DestinationRefused when it was not taken."""


Connect = Callable[[DestinationSettings, Offers], AbstractContextManager[StoragePeer]]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """One delivery with what it brings."""

    lease: Lease
    subject: Subject
    meta: FileMeta
    chunks: Iterable[bytes]

    @property
    def offer(self) -> tuple[str, str]:
        """The SOP class and transfer syntax that the destination must accept."""
        return self.meta.sop_class_uid, self.meta.transfer_syntax_uid


@dataclass(frozen=True, slots=True)
class _Answer:
    """One delivery that ended: the destination has it, or it is refused for good."""

    lease: Lease
    subject: Subject | None
    error: RadnodeError | None
    duration_ms: float = 0.0


class Courier:
    """Brings one kind of object to one destination; with `promises` it is delivered once that has committed it."""

    def __init__(
        self,
        destination: DestinationSettings,
        stores: Stores,
        *,
        kind: JobKind,
        breaker: Breaker,
        connect: Connect,
        settings: DeliverSettings,
        actor: Actor,
        owner: str,
        log: Any,
        promises: Promises | None = None,
    ) -> None:
        self._destination = destination
        self._stores = stores
        self._kind = kind
        self._words = WORDS[kind]
        self._breaker = breaker
        self._connect = connect
        self._settings = settings
        self._actor = actor
        self._owner = owner
        self._log = log.bind(destination=destination.name)
        self._rounds = Rounds(stores.queue, owner, self._log, "delivery_stalled")
        self._promises = promises

    def ring(self) -> None:
        """Say that there may be work."""
        self._rounds.ring()

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set."""
        self._rounds.go(self.step, self._idle_seconds, stop)

    def step(self) -> int:
        """Try one batch of due deliveries; return how many there were."""
        allowed = self._breaker.admit(BATCH)
        if not allowed:
            return 0
        leases = self._stores.queue.lease(self._kind, self._owner, LEASE_SECONDS, allowed, self._destination.name)
        if not leases:
            return 0
        waiting, answers, asking = list(leases), list[_Answer](), list[_Parcel]()
        sending, taken = False, 0
        error: RadnodeError | None = None
        try:
            parcels = [parcel for lease in leases if (parcel := self._packed(lease, answers)) is not None]
            for answer in answers:  # what cannot be sent at all
                waiting.remove(answer.lease)
            if parcels:
                with self._connect(self._destination, [parcel.offer for parcel in parcels]) as peer:
                    sending = True
                    settled = time.monotonic()
                    for parcel in parcels:
                        self._deliver(peer, parcel, answers, asking)
                        taken += 1
                        waiting.remove(parcel.lease)
                        if time.monotonic() - settled > SETTLE_SECONDS:
                            self._settle(answers)
                            settled = time.monotonic()
                    if self._promises is not None and asking:
                        self._promises.ask(peer, [(parcel.lease, parcel.meta) for parcel in asking])
        except RadnodeError as failure:  # a rejected association says nothing about the objects, so they wait too
            error = failure
        self._settle(answers)
        seconds = self._judge(error, taken=bool(taken))
        if error is not None:
            met = waiting[:1] if sending else []
            self._postpone(waiting[len(met) :], error, seconds)
            # Whoever met the error comes after the others, whatever its priority: what makes a destination abort must
            # not block it, and the next probe finds others first.
            self._postpone(met, error, (seconds or 0.0) + self._own_pause(met))
            self._postpone([parcel.lease for parcel in asking], error, seconds)
        return len(leases)

    def _judge(self, error: RadnodeError | None, *, taken: bool) -> float | None:
        """Tell the breaker what came of an association; return the pause that the destination is given, if one."""
        if taken:
            self._breaker.worked()
        elif isinstance(error, DeliveryError):
            return self._breaker.failed(error)
        return None

    def _idle_seconds(self) -> float:
        """Return how long there is nothing to do unless somebody rings."""
        if closed := self._breaker.pause():
            return min(IDLE_SECONDS, max(0.05, closed))
        due = self._stores.queue.next_due(self._kind, self._destination.name)
        return IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.05, due - time.time()))

    def _packed(self, lease: Lease, answers: list[_Answer]) -> _Parcel | None:
        """Open what a delivery brings; None, with an answer, where it is not there or damaged."""
        reach("delivery-leased")
        subject = None
        try:
            with reading(self._stores.engine) as tx:
                subject = subject_of(tx, lease.kind, lease.subject)
            meta, chunks = opened(self._stores, subject.object_id)
        except (NotFoundError, SealBroken, MalformedDataSet) as error:
            answers.append(_Answer(lease, subject, error))
            return None
        return _Parcel(lease, subject, meta, chunks)

    def _deliver(self, peer: StoragePeer, parcel: _Parcel, answers: list[_Answer], asking: list[_Parcel]) -> None:
        """Send an object, or see that it was sent; add it to those that ended, or to those to be asked for."""
        started = time.monotonic()
        lease, subject = parcel.lease, parcel.subject
        is_sent = self._promises is not None and self._promises.is_sent(lease)
        refusal = None
        try:
            if not is_sent:
                peer.store_chunks(parcel.chunks)
                reach("report-sent")
        except DestinationHolds:  # most likely sent before, the answer lost
            self._say_held(lease, subject)
        except DestinationRefused as error:
            refusal = error
        duration = round((time.monotonic() - started) * 1000, 1)
        if self._promises is None or refusal is not None:
            answers.append(_Answer(lease, subject, refusal, duration))
            return
        asking.append(parcel)
        if not is_sent:
            self._promises.sent(lease, parcel.meta)
            self._log.info(self._words.sent, **_named(subject), duration_ms=duration)

    def _say_held(self, lease: Lease, subject: Subject) -> None:
        """Say that a destination holds an object of this UID; an alert where that might have other bytes."""
        about = {**_named(subject), "job": lease.job_id, "attempt": lease.attempt}
        if self._words.is_own:
            self._log.info(self._words.held, **about)
            return
        alert = AuditRecord(
            events.ALERT,
            self._actor,
            patient=subject.patient,
            study=subject.study,
            instance=subject.instance,
            detail={"rule": self._words.held, "destination": self._destination.name},
        )
        with transaction(self._stores.engine) as tx:
            self._stores.audit.record(tx, alert)
        self._log.warning(self._words.held, **about, advice=HELD_ADVICE)

    def _settle(self, answers: list[_Answer]) -> None:
        """Commit the ends of deliveries with their audit entries, say so in the log, and forget them."""
        if not answers:
            return
        entries = [self._stores.audit.compose(self._record(answer)) for answer in answers]  # others cannot write below
        lost, ended = set(), []
        with transaction(self._stores.engine) as tx:
            for answer, entry in zip(answers, entries, strict=True):
                try:
                    if answer.error is None:
                        self._stores.queue.finish(tx, answer.lease)
                    else:
                        self._stores.queue.bury(tx, answer.lease, str(answer.error))
                    ended.append(entry)
                except StaleLease:  # changed nothing; another courier has it
                    lost.add(answer.lease.job_id)
            if ended:
                self._stores.audit.append(tx, ended)
            reach("delivery-uncommitted")
        reach("delivery-committed")
        for answer in answers:
            if answer.lease.job_id in lost:
                self._log.warning("lease_lost", **_named(answer.subject), job=answer.lease.job_id)
            elif answer.error is None:
                self._log.info(self._words.delivered, **_named(answer.subject), duration_ms=answer.duration_ms)
            else:
                job, message = answer.lease.job_id, str(answer.error)
                self._log.error(self._words.refused, **_named(answer.subject), job=job, message=message)
        answers.clear()

    def _record(self, answer: _Answer) -> AuditRecord:
        detail: dict[str, str | int] = {"destination": self._destination.name, "attempt": answer.lease.attempt}
        detail["recipient"] = self._destination.recipient[:MAX_DETAIL_LENGTH]
        subject = answer.subject
        if subject is not None:
            detail |= subject.names
        if answer.error is not None:
            detail["reason"] = str(answer.error)[:MAX_DETAIL_LENGTH]
        return AuditRecord(
            self._words.delivery if answer.error is None else events.DELIVERY_FAILED,
            self._actor,
            patient=None if subject is None else subject.patient,
            study=None if subject is None else subject.study,
            instance=None if subject is None else subject.instance,
            model=None if subject is None else subject.model,
            detail=detail,
        )

    def _postpone(self, leases: list[Lease], error: RadnodeError, seconds: float | None) -> None:
        """Put off what this attempt did not deliver, in this order, for the destination's pause or one of their own."""
        if not leases:
            return
        attempt = min(lease.attempt for lease in leases)
        if seconds is None:
            seconds = self._own_pause(leases)
        with transaction(self._stores.engine) as tx:
            for place, lease in enumerate(leases):
                with contextlib.suppress(StaleLease):  # another courier has it
                    self._stores.queue.postpone(tx, lease, seconds + place / 1000, str(error))
        event = "destination_unavailable" if isinstance(error, DeliveryError) else "delivery_stalled"
        self._log.warning(event, count=len(leases), attempt=attempt, error=type(error).__name__, message=str(error))

    def _own_pause(self, leases: list[Lease]) -> float:
        """Return the pause after as many attempts as the least tried of these had."""
        return pause(self._settings, min((lease.attempt for lease in leases), default=1))


def _named(subject: Subject | None) -> dict[str, str]:
    """Return how the log names what a delivery is about."""
    return {} if subject is None else {**subject.names, "study": subject.study, "instance": subject.instance}
