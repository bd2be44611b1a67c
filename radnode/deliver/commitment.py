"""Answers to storage commitments on their way to the peer that asked (PS3.4 Annex J).

One request is one job, done when the peer has answered the N-EVENT-REPORT with 0000 and not before: it is told again
with growing pauses, without end, whatever is restarted meanwhile. The listener tries first, on the association on which
the peer asked; what does not get through there waits for the thread that calls the peer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from radnode.audit.events import Actor
from radnode.commitments import Commitments, Judgement
from radnode.deliver.patience import pause
from radnode.deliver.rounds import Rounds
from radnode.errors import DeliveryError, PeerMovedOn, RadnodeError, StaleLease
from radnode.failpoints import reach
from radnode.jobs.database import transaction
from radnode.model import CommitmentReport, JobKind, Lease
from radnode.settings import DeliverSettings
from radnode.stores import Stores

BATCH = 8
LEASE_SECONDS = 600.0  # to read what the requests name; what a process held that died is given back at once
IDLE_SECONDS = 5.0


class Channel(Protocol):
    """A way to a peer."""

    def report(self, report: CommitmentReport) -> None:
        """Return once the peer has taken one report; DeliveryError when it has not."""


Connect = Callable[[], AbstractContextManager[Channel]]


class Reporter:
    """Tells one peer (an AE title) what became of the instances that it asked to be committed."""

    def __init__(
        self,
        peer: str,
        stores: Stores,
        commitments: Commitments,
        *,
        settings: DeliverSettings,
        actor: Actor,
        owner: str,
        log: Any,
    ) -> None:
        self._peer = peer
        self._stores = stores
        self._commitments = commitments
        self._settings = settings
        self._actor = actor
        self._owner = owner
        self._log = log.bind(ae=peer)
        self._rounds = Rounds(stores.queue, owner, self._log, "commitment_stalled")
        self._judged: dict[str, Judgement] = {}  # of requests whose peer could not be told yet; at most a batch

    def ring(self) -> None:
        """Say that there may be work."""
        self._rounds.ring()

    def run(self, connect: Connect, stop: threading.Event) -> None:
        """Call the peer whenever there is something to tell it, until `stop` is set."""
        self._rounds.go(partial(self.step, connect), self._idle_seconds, stop)

    def step(self, connect: Connect, go_on: Callable[[], bool] = lambda: True) -> int:
        """Answer a batch of requests that are due, for as long as `go_on` says; return how many there were."""
        leases = self._stores.queue.lease(JobKind.COMMIT, self._owner, LEASE_SECONDS, BATCH, self._peer)
        waiting = list(leases)
        try:
            if waiting:
                self._judge(waiting[0], go_on)  # before the peer is made to wait
                with connect() as channel:
                    while waiting:
                        self._tell(channel, waiting[0], go_on)
                        waiting.pop(0)
        except RadnodeError as error:
            self._postpone(waiting[1:] + waiting[:1], error)  # whoever met the error goes behind the others
        return len(leases)

    def _idle_seconds(self) -> float:
        """Return how long there is nothing to do unless somebody rings."""
        due = self._stores.queue.next_due(JobKind.COMMIT, self._peer)
        return IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.05, due - time.time()))

    def _judge(self, lease: Lease, go_on: Callable[[], bool]) -> Judgement:
        """Return what there is to say, looked at once for all tries."""
        judgement = self._judged.get(lease.subject)
        if judgement is None:
            judgement = self._commitments.judge(self._commitments.load(lease.subject), go_on)
            if len(self._judged) >= BATCH:
                self._judged.pop(next(iter(self._judged)))
            self._judged[lease.subject] = judgement
        return judgement

    def _tell(self, channel: Channel, lease: Lease, go_on: Callable[[], bool]) -> None:
        judgement = self._judge(lease, go_on)
        reach("request-judged")
        channel.report(judgement.report)
        reach("request-answered")
        del self._judged[lease.subject]
        with contextlib.suppress(StaleLease):  # another told it too; the peer knows the transaction
            self._commitments.settle(lease, judgement, self._actor, self._peer)
        report = judgement.report
        say = self._log.warning if report.failed else self._log.info
        status = f"{report.failed[0].reason:04X}" if report.failed else "0000"
        say(
            "commitment_reported",
            job=lease.job_id,
            count=len(report.committed),
            failed=len(report.failed),
            status=status,
        )

    def _postpone(self, leases: list[Lease], error: RadnodeError) -> None:
        """Put off what was not told: 2^n times the first pause, with jitter; a peer that moved on is called at once."""
        moved_on = isinstance(error, PeerMovedOn)
        attempt = min(lease.attempt for lease in leases)
        seconds = 0.0 if moved_on else pause(self._settings, attempt)
        with transaction(self._stores.engine) as tx:
            for place, lease in enumerate(leases):
                with contextlib.suppress(StaleLease):  # another has it
                    delay = seconds + place / 1000
                    self._stores.queue.postpone(tx, lease, delay, str(error), counted=not moved_on)
        if moved_on:
            self._stores.wake("deliver")
        else:
            event = "peer_unavailable" if isinstance(error, DeliveryError) else "commitment_stalled"
            name, text = type(error).__name__, str(error)
            self._log.warning(event, count=len(leases), attempt=attempt, error=name, message=text)
