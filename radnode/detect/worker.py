"""The worker: leases jobs, analyses images in batches, commits results.

lease -> unseal -> gate -> decode (child process) -> detect (one batch) -> report -> seal, put -> ONE commit.
A job that was tried before runs alone, so that an image that kills the process harms no neighbour's attempts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, ParamSpec, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from sqlalchemy import Connection

from radnode.audit.events import Actor
from radnode.detect.analyser import Analyser, Task
from radnode.detect.gate import is_image
from radnode.errors import NotFoundError, RadnodeError, StaleLease
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import InstanceRow, get_instance
from radnode.model import Analysis, JobKind, Lease, Outcome, Reason
from radnode.observe import describe
from radnode.results import Prepared, Report, Results
from radnode.rules import Decision, Rules
from radnode.settings import DetectSettings
from radnode.stores import Stores

STUCK = 70  # exit status of a worker whose detector hung (EX_SOFTWARE); the supervisor starts another
TROUBLE_SECONDS = 10.0  # how long a job waits when disk, database or keys of this node fail
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_RETRIED = frozenset({Reason.MODEL_UNAVAILABLE, Reason.MODEL_RAISED, Reason.MODEL_OUTPUT_INVALID})

P = ParamSpec("P")
T = TypeVar("T")
Compose = Callable[[Dataset, Analysis, float], Report]


@dataclass(slots=True)
class _Work:
    """One leased job on its way through the worker."""

    lease: Lease
    instance: InstanceRow
    header: Dataset
    decision: Decision
    tasks: list[Task] = field(default_factory=list)


class Worker:
    """Works through the analysis jobs of one node; `owner` names this process in its leases."""

    def __init__(
        self,
        stores: Stores,
        *,
        results: Results,
        rules: Rules,
        analyser: Analyser,
        compose: Compose,
        settings: DetectSettings,
        actor: Actor,
        owner: str,
        log: Any,
    ) -> None:
        self._stores = stores
        self._results = results
        self._rules = rules
        self._analyser = analyser
        self._compose = compose
        self._settings = settings
        self._actor = actor
        self._owner = owner
        self._log = log

    def step(self) -> int:
        """Work on one batch of due jobs; return how many there were."""
        seconds = self._settings.timeout_seconds + self._settings.batch * self._settings.decode_seconds + 60
        leases = self._stores.queue.lease(JobKind.ANALYSE, self._owner, seconds, self._settings.batch)
        started = time.monotonic()
        work = [opened for lease in leases if (opened := self._guarded(lease, self._open, lease)) is not None]
        try:
            batches = self._analyser.decode([task for item in work for task in item.tasks])
        except RadnodeError as error:
            for item in work:
                self._give_back(item.lease, error)
            return len(leases)
        for batch in batches:
            with self._watchdog():
                batch.run()
        for item in work:
            self._guarded(item.lease, self._close, item, started)
        return len(leases)

    def _guarded(self, lease: Lease, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Do one job's part: whatever it raises costs this job a try and its neighbours nothing."""
        try:
            return work(*arguments, **options)
        except StaleLease:
            self._log.warning("lease_lost", instance=lease.subject, job=lease.job_id, attempt=lease.attempt)
        except Exception as error:  # noqa: BLE001 (libraries raise anything on what a peer sent)
            self._give_back(lease, error)
        return None

    def _open(self, lease: Lease) -> _Work | None:
        """Unseal one instance and see what the rules want for it; None when it is given up."""
        if lease.attempt > self._settings.max_attempts + 1:  # even saying "failed" ended this process
            self._bury(lease, Reason.TOO_MANY_ATTEMPTS)
            return None
        with reading(self._stores.engine) as tx:
            instance = get_instance(tx, lease.subject)
        part10 = self._stores.vault.get(instance.object_id)
        header = pydicom.dcmread(BytesIO(part10), stop_before_pixels=True)
        decision = self._rules.decide(self._rules.elements(part10, instance.peer))
        work = _Work(lease, instance, header, decision)
        exhausted = lease.attempt > self._settings.max_attempts
        for name in decision.detect if is_image(header) else ():
            task = self._analyser.task(name, header, part10)
            if exhausted:
                task.decline(Reason.TOO_MANY_ATTEMPTS)
            work.tasks.append(task)
        return work

    def _close(self, work: _Work, started: float) -> None:
        """Commit what came of one job: results, reports to deliver, audit, and the end of the lease."""
        lease = work.lease
        analyses = [task.analysis for task in work.tasks]
        failed = next((analysis for analysis in analyses if analysis.outcome is Outcome.FAILED), None)
        if failed is not None and failed.reason in _RETRIED and lease.attempt < self._settings.max_attempts:
            self._postpone(lease, str(failed.reason))
            return
        reason = failed and failed.reason
        given_up = str(reason) if reason in _RETRIED | {Reason.TOO_MANY_ATTEMPTS} else None
        prepared = self._prepare(work, analyses)
        try:
            with transaction(self._stores.engine) as tx:
                self._results.commit(tx, prepared, work.decision, self._actor)
                if given_up is not None:
                    self._stores.queue.bury(tx, lease, given_up)
                else:
                    self._stores.queue.finish(tx, lease)
        except RadnodeError:
            self._results.discard(prepared)
            raise
        self._results.announce()
        duration = round((time.monotonic() - started) * 1000, 1)
        common = {"instance": lease.subject, "study": work.instance.study, "job": lease.job_id, "duration_ms": duration}
        for result in prepared:
            analysis = result.analysis
            outcome = {"outcome": analysis.outcome.value, "reason": analysis.reason and analysis.reason.value}
            say = self._log.warning if analysis.outcome is Outcome.FAILED else self._log.info
            say("image_analysed", model=result.row.model, result=result.row.result, **common, **outcome)
        if not analyses:
            self._log.info("image_kept", **common)
        if given_up is not None:
            about = {"instance": lease.subject, "study": work.instance.study}
            self._log.error("job_buried", **about, job=lease.job_id, attempt=lease.attempt, error=given_up)

    def _prepare(self, work: _Work, analyses: Sequence[Analysis]) -> list[Prepared]:
        source = {**elements(work.header, _UIDS), "PatientID": elements(work.header, ("PatientID",))["PatientID"]}
        received = work.instance.received
        composed = [(analysis, self._compose(work.header, analysis, received)) for analysis in analyses]
        prepared: list[Prepared] = []
        try:
            for analysis, report in composed:
                result = self._results.prepare(work.instance, source, analysis, report)
                prepared += [] if result is None else [result]
        except RadnodeError:
            self._results.discard(prepared)
            raise
        return prepared

    def _give_back(self, lease: Lease, error: Exception) -> None:
        """Postpone a job that met a fault, or bury it after its tries. Trouble of this node's own counts as none."""
        fault = describe(error)
        self._log.error("job_failed", instance=lease.subject, job=lease.job_id, attempt=lease.attempt, **fault)
        if isinstance(error, RadnodeError) and error.retry:
            with self._settling(lease) as tx:
                self._stores.queue.postpone(tx, lease, TROUBLE_SECONDS, fault["error"], counted=False)
        elif isinstance(error, NotFoundError) or lease.attempt > self._settings.max_attempts:
            self._bury(lease, fault["error"])
        else:
            self._postpone(lease, fault["error"])

    def _postpone(self, lease: Lease, word: str) -> None:
        with self._settling(lease) as tx:
            self._stores.queue.postpone(tx, lease, float(2**lease.attempt), word)

    def _bury(self, lease: Lease, word: str) -> None:
        self._log.error("job_buried", instance=lease.subject, job=lease.job_id, attempt=lease.attempt, error=word)
        with self._settling(lease) as tx:
            self._stores.queue.bury(tx, lease, word)

    @contextmanager
    def _settling(self, lease: Lease) -> Iterator[Connection]:
        """Open a transaction that gives one lease back; one that has passed to another worker is left to it.

        Where the database fails too, the step ends, and the role gives back every lease of this worker.
        """
        try:
            with transaction(self._stores.engine) as tx:
                yield tx
        except StaleLease:
            self._log.warning("lease_lost", instance=lease.subject, job=lease.job_id, attempt=lease.attempt)

    @contextmanager
    def _watchdog(self) -> Iterator[None]:
        """End this process when the detector hangs: no thread can be stopped, a process can."""
        timer = threading.Timer(self._settings.timeout_seconds, self._stuck)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stuck(self) -> None:
        self._log.critical("detector_stuck", exit=STUCK)
        os._exit(STUCK)


def elements(header: Dataset, keywords: Sequence[str] | frozenset[str]) -> dict[str, str]:
    """Return the values of elements as text, several with a backslash between; "" for what is missing or unreadable."""
    return {keyword: _text(header, keyword) for keyword in keywords}


def _text(header: Dataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
    except (ValueError, TypeError, KeyError, NotImplementedError, OverflowError):
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)
