"""The worker: leases jobs, analyses images in batches, commits results.

lease -> unseal -> gate -> decode (child process) -> detect (one batch) -> report -> seal, put -> ONE commit.
A job that was tried before runs alone, so that an image that kills the process harms no neighbour's attempts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, Protocol

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from sqlalchemy import Connection

from radnode.audit.events import Actor
from radnode.detect.analyser import Analyser, Batch, Task
from radnode.detect.behind import Behind, ahead
from radnode.detect.deadline import deadline
from radnode.detect.gate import is_image
from radnode.detect.illustrating import ComposeSecondary, Illustrator
from radnode.detect.shadows import Seen, Shadows
from radnode.detect.tries import Tries, milliseconds_since, told
from radnode.errors import RadnodeError
from radnode.failpoints import reach
from radnode.jobs.database import reading
from radnode.jobs.index import InstanceRow, get_instance
from radnode.model import Analysis, JobKind, Lease, Outcome, Reason, View
from radnode.results import Prepared, Report, Results
from radnode.rules import Decision, Rules
from radnode.settings import DetectSettings
from radnode.stores import Stores

_TOGETHER = 2  # images decoded ahead of the network
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

# The header of the image, the analysis, when the image came (epoch seconds), the header of the report before this one.
Compose = Callable[[Dataset, Analysis, float, Sequence[Dataset]], Report]


class WholeSeries(Protocol):
    """Who cares for detectors that look at whole series."""

    def wanted_by(self, name: str) -> bool:
        """Say whether a detector looks at whole series."""

    def touch(self, tx: Connection, instance: InstanceRow, header: Dataset) -> None:
        """Say, in the commit that ends the job of an image, that such a detector wants its series."""


@dataclass(slots=True)
class _Work:
    """One leased job on its way through the worker."""

    lease: Lease
    instance: InstanceRow
    header: Dataset
    decision: Decision
    tasks: list[Task] = field(default_factory=list)
    touches_series: bool = False


class Worker:
    """Works through the analysis jobs of one node; `owner` names this process in its leases.

    With `behind`, the results of a batch are committed there while the next step goes on; `settle` waits for them.
    """

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
        whole_series: WholeSeries | None = None,
        illustrate: ComposeSecondary | None = None,
        shadows: Shadows | None = None,
        behind: Behind | None = None,
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
        self._whole_series = whole_series
        self._shadows = shadows
        self._behind = behind
        self._illustrator = Illustrator(illustrate, log)
        self._tries = Tries(stores, results, settings.max_attempts, log)

    def step(self) -> int:
        """Work on one batch of due jobs; return how many there were."""
        with deadline(2 * self._lease_seconds()):  # whoever takes longer than a lease has lost it anyway
            return self._step()

    def _step(self) -> int:
        leases = self._stores.queue.lease(JobKind.ANALYSE, self._owner, self._lease_seconds(), self._settings.batch)
        started = time.monotonic()
        work = [opened for lease in leases if (opened := self._tries.guarded(lease, self._open, lease)) is not None]
        batches: list[Batch] = []
        try:
            for decoded in ahead([partial(self._analyser.decode, part) for part in self._parts(work)]):
                for batch in decoded:
                    reach("images-decoded")
                    with self._tries.watchdog(self._settings.timeout_seconds):
                        batch.run()
                batches += decoded
        except RadnodeError as error:
            for item in work:
                self._tries.give_back(item.lease, error)
            return len(leases)
        close = partial(self._close_all, work, started)
        if self._behind is None:
            close()
        else:
            self._behind.run(close)
        self._look_in_the_shadow(work, batches)
        return len(leases)

    def _parts(self, work: Sequence[_Work]) -> list[list[Task]]:
        """Return the tasks as they are decoded together: few images where the networks take them one by one anyway."""
        if self._behind is None or not all(task.one_by_one for item in work for task in item.tasks):
            return [[task for item in work for task in item.tasks]]
        return [
            [task for item in work[start : start + _TOGETHER] for task in item.tasks]
            for start in range(0, len(work), _TOGETHER)
        ]

    def settle(self) -> None:
        """Return when every batch that a step has worked on is committed.

        Raises:
            RadnodeError: one could not be; whoever gives back this worker's leases gives back its jobs.
        """
        if self._behind is not None:
            self._behind.settle()

    def _close_all(self, work: Sequence[_Work], started: float) -> None:
        for item in work:
            self._tries.guarded(item.lease, self._close, item, started)

    def _look_in_the_shadow(self, work: Sequence[_Work], batches: Sequence[Batch]) -> None:
        """Show a batch to the versions in the shadow, when its results are committed."""
        if self._shadows is None:
            return
        shadowed = [batch for batch in batches if self._analyser.has_shadow(batch.tasks[0].name)]
        if shadowed:
            self.settle()
            owners = {id(task): item for item in work for task in item.tasks}
            for batch in shadowed:
                seen = [Seen(owners[id(task)].instance, task.header, task.analysis) for task in batch.tasks]
                self._shadows.look(batch.tasks[0].name, seen, batch.images)

    def _lease_seconds(self) -> float:
        """Return how long a batch may take at most: every detector loaded and run up to its deadline, and the rest."""
        settings = self._settings
        detectors = len(self._rules.detectors) * (settings.load_seconds + settings.timeout_seconds)
        return detectors + settings.batch * settings.decode_seconds + 60

    def _open(self, lease: Lease) -> _Work | None:
        """Unseal one instance and see what the rules want for it; None when it is given up."""
        reach("analysis-leased")
        if self._tries.hopeless(lease):
            return None
        with reading(self._stores.engine) as tx:
            instance = get_instance(tx, lease.subject)
        part10 = self._stores.vault.get(instance.object_id)
        header = pydicom.dcmread(BytesIO(part10), stop_before_pixels=True)
        decision = self._rules.decide(self._rules.elements(part10, instance.peer))
        work = _Work(lease, instance, header, decision)
        for name in decision.detect if is_image(header) else ():
            if self._whole_series is not None and self._whole_series.wanted_by(name):
                work.touches_series = True
                continue
            task = self._analyser.task(name, header, part10, self._illustrator.view_side(decision))
            if self._tries.exhausted(lease):
                task.decline(Reason.TOO_MANY_ATTEMPTS)
            work.tasks.append(task)
        return work

    def _close(self, work: _Work, started: float) -> None:
        """Commit what came of one job: results, reports to deliver, audit, and the end of the lease."""
        reach("image-detected")
        analyses = [task.analysis for task in work.tasks]
        views = [{} if task.view is None else {1: task.view} for task in work.tasks]

        def commit(tx: Connection, prepared: list[Prepared]) -> None:
            self._results.commit(tx, prepared, work.decision, self._actor)
            if work.touches_series and self._whole_series is not None:
                self._whole_series.touch(tx, work.instance, work.header)

        about = {"instance": work.lease.subject, "study": work.instance.study, "job": work.lease.job_id}

        def tell(result: Prepared) -> None:
            say = self._log.warning if result.analysis.outcome is Outcome.FAILED else self._log.info
            say("image_analysed", **about, **told(result, started))

        prepare = partial(self._prepare, work, analyses, views)
        if self._tries.close(work.lease, analyses, prepare, commit, tell) and not analyses:
            self._log.info("image_kept", **about, duration_ms=milliseconds_since(started))

    def _prepare(
        self, work: _Work, analyses: Sequence[Analysis], views: Sequence[Mapping[int, View]]
    ) -> list[Prepared]:
        source = {**elements(work.header, _UIDS), "PatientID": elements(work.header, ("PatientID",))["PatientID"]}
        received = work.instance.received
        reports = [
            self._compose(work.header, analysis, received, reports_before(self._results, work.instance, analysis))
            for analysis in analyses
        ]
        drawn = [
            self._illustrator.objects([work.header], analysis, received, report, work.decision, shown)
            for analysis, report, shown in zip(analyses, reports, views, strict=True)
        ]
        reach("report-composed")
        prepared: list[Prepared] = []
        try:
            for analysis, report, secondary in zip(analyses, reports, drawn, strict=True):
                result = self._results.prepare(work.instance, source, analysis, report, secondary=secondary)
                prepared += [] if result is None else [result]
        except RadnodeError:
            self._results.discard(prepared)
            raise
        return prepared


def reports_before(results: Results, instance: InstanceRow, analysis: Analysis) -> list[Dataset]:
    """Return the header of the last report of a detector, of any version, on an image, if there is one."""
    part10 = results.last_report(instance, analysis.model.name)
    return [] if part10 is None else [report_header(part10)]


def report_header(part10: bytes) -> Dataset:
    """Return what a later report says of a report."""
    return pydicom.dcmread(BytesIO(part10), specific_tags=["SOPClassUID", *_UIDS])


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
