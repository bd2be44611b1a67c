"""Tries: how a leased job of a worker ends: with a commit, in another try, or among the dead letters.

Trouble of this node's own counts as no try; what a job meets harms no other job.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection

from radnode.detect.deadline import deadline
from radnode.detect.loading import STUCK
from radnode.errors import NotFoundError, RadnodeError, StaleLease
from radnode.failpoints import reach
from radnode.jobs.database import transaction
from radnode.model import Analysis, JobKind, Lease, Outcome, Reason
from radnode.observe import describe
from radnode.results import Prepared, Results
from radnode.stores import Stores

EXHAUSTED = 71  # exit status of a worker that is refused memory (EX_OSERR); the supervisor starts another
LAST_LINE_SECONDS = 5.0  # how long a worker that hangs may take to say so
TROUBLE_SECONDS = 10.0  # how long a job waits when disk, database or keys of this node fail
_RETRIED = frozenset({Reason.MODEL_UNAVAILABLE, Reason.MODEL_RAISED, Reason.MODEL_OUTPUT_INVALID})

P = ParamSpec("P")
T = TypeVar("T")


class Tries:
    """The ends of the jobs that one worker leases, each at its `max_attempts` try at the latest."""

    def __init__(self, stores: Stores, results: Results, max_attempts: int, log: Any) -> None:
        self._stores = stores
        self._results = results
        self._max_attempts = max_attempts
        self._log = log

    def exhausted(self, lease: Lease) -> bool:
        """Say whether a job has had its tries, and is to be reported as failed without another one."""
        return lease.attempt > self._max_attempts

    def hopeless(self, lease: Lease) -> bool:
        """Bury a job when even saying "failed" ended this process; say whether it was."""
        if lease.attempt > self._max_attempts + 1:
            self._bury(lease, Reason.TOO_MANY_ATTEMPTS)
            return True
        return False

    def guarded(self, lease: Lease, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Do one job's part: whatever it raises costs this job a try and its neighbours nothing.

        Where memory has run out this process ends: it could not even say "failed", and its successor has all there is.
        """
        try:
            return work(*arguments, **options)
        except StaleLease:
            self._log.warning("lease_lost", **_about(lease), job=lease.job_id, attempt=lease.attempt)
        except MemoryError:
            self._end("out_of_memory", EXHAUSTED)
        except Exception as error:  # noqa: BLE001 (libraries raise anything on what a peer sent)
            self.give_back(lease, error)
        return None

    def close(
        self,
        lease: Lease,
        analyses: Sequence[Analysis],
        prepare: Callable[[], list[Prepared]],
        commit: Callable[[Connection, list[Prepared]], None],
        tell: Callable[[Prepared], None],
    ) -> bool:
        """End a job in the commit of its outcome; False: it is tried again.

        Args:
            lease: the job.
            analyses: what came of it.
            prepare: makes the results durable.
            commit: adds them, and whatever belongs to them, to the transaction that ends the lease.
            tell: says in the log what came of each.

        Raises:
            StaleLease: the job has passed to another worker; nothing of this was committed.
            RadnodeError: the commit did not happen.
        """
        failed = next((analysis for analysis in analyses if analysis.outcome is Outcome.FAILED), None)
        if failed is not None and failed.reason in _RETRIED and lease.attempt < self._max_attempts:
            self._postpone(lease, str(failed.reason))
            return False
        reason = failed and failed.reason
        given_up = str(reason) if reason in _RETRIED | {Reason.TOO_MANY_ATTEMPTS} else None
        prepared = prepare()
        try:
            with transaction(self._stores.engine) as tx:
                commit(tx, prepared)
                if given_up is not None:
                    self._stores.queue.bury(tx, lease, given_up)
                else:
                    self._stores.queue.finish(tx, lease)
                reach("result-uncommitted")
        except RadnodeError:
            self._results.discard(prepared)
            raise
        reach("result-committed")
        self._results.announce()
        for result in prepared:
            tell(result)
        if given_up is not None:
            self._log.error("job_buried", **_about(lease), job=lease.job_id, attempt=lease.attempt, error=given_up)
        return True

    def give_back(self, lease: Lease, error: Exception) -> None:
        """Postpone a job that met a fault, or bury it after its tries. Trouble of this node's own counts as none."""
        fault = describe(error)
        self._log.error("job_failed", **_about(lease), job=lease.job_id, attempt=lease.attempt, **fault)
        if isinstance(error, RadnodeError) and error.retry:
            with self.settling(lease) as tx:
                self._stores.queue.postpone(tx, lease, TROUBLE_SECONDS, fault["error"], counted=False)
        elif isinstance(error, NotFoundError) or self.exhausted(lease):
            self._bury(lease, fault["error"])
        else:
            self._postpone(lease, fault["error"])

    @contextmanager
    def settling(self, lease: Lease) -> Iterator[Connection]:
        """Open a transaction that gives one lease back; one that has passed to another worker is left to it.

        Where the database fails too, the step ends, and the role gives back every lease of this worker.
        """
        try:
            with transaction(self._stores.engine) as tx:
                yield tx
        except StaleLease:
            self._log.warning("lease_lost", **_about(lease), job=lease.job_id, attempt=lease.attempt)

    @contextmanager
    def watchdog(self, seconds: float) -> Iterator[None]:
        """End this process when the detector hangs: no thread can be stopped, a process can."""
        with deadline(seconds + LAST_LINE_SECONDS):
            timer = threading.Timer(seconds, self._end, ("detector_stuck", STUCK))
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()

    def _postpone(self, lease: Lease, word: str) -> None:
        with self.settling(lease) as tx:
            self._stores.queue.postpone(tx, lease, float(2**lease.attempt), word)

    def _bury(self, lease: Lease, word: str) -> None:
        self._log.error("job_buried", **_about(lease), job=lease.job_id, attempt=lease.attempt, error=word)
        with self.settling(lease) as tx:
            self._stores.queue.bury(tx, lease, word)

    def _end(self, event: str, status: int) -> None:
        """Say why, and end this process at once."""
        try:
            self._log.critical(event, exit=status)
        finally:
            os._exit(status)


def told(result: Prepared, started: float) -> dict[str, Any]:
    """What a line of the log says of a result whose job began at `started` of the monotonic clock."""
    analysis = result.analysis
    return {
        "model": result.row.model,
        "result": result.row.result,
        "outcome": analysis.outcome.value,
        "reason": analysis.reason and analysis.reason.value,
        "duration_ms": milliseconds_since(started),
    }


def milliseconds_since(started: float) -> float:
    """Return how long ago `started` of the monotonic clock was, in ms."""
    return round((time.monotonic() - started) * 1000, 1)


def _about(lease: Lease) -> dict[str, str]:
    """What a job is about, as a line of the log says it."""
    return {"series" if lease.kind is JobKind.SERIES else "instance": lease.subject}
