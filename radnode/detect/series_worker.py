"""The part of the worker that looks at whole series: completed ones become one volume and one report a detector.

decide -> lease -> read every header -> in order along the normal -> decode slice by slice -> detect -> ONE commit.
Memory is bounded by one image and by the volume that the package's manifest allows; of each image a few elements stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from sqlalchemy import Connection

from radnode.audit.events import Actor
from radnode.detect.analyser import Analyser, LoadedSeries, declined
from radnode.detect.deadline import deadline
from radnode.detect.gate import check, is_image
from radnode.detect.illustrating import ComposeSecondary, Illustrator
from radnode.detect.series_image import UIDS, SeriesImage
from radnode.detect.shadows import Seen, Shadows
from radnode.detect.tries import Tries, told
from radnode.detect.volume import VolumeBuilder, in_order
from radnode.detect.worker import elements, report_header
from radnode.errors import DetectionError, RadnodeError, SealBroken
from radnode.failpoints import reach
from radnode.jobs.completion import Completion
from radnode.jobs.database import reading
from radnode.jobs.index import InstanceRow
from radnode.jobs.series import SeriesRow, add_series_result, find_series, images_of, last_report
from radnode.model import Analysis, JobKind, Lease, Outcome, Reason, View
from radnode.readiness import announcement
from radnode.results import Prepared, Report, Results
from radnode.rules import Decision, Rules
from radnode.settings import DetectSettings
from radnode.stores import Stores

GRACE_SECONDS = 60.0  # of a lease, beyond what the work on the series may take
_COUNT = "NumberOfSeriesRelatedInstances"

# The headers of the analysed images (the first one whole), the analysis, when the last image came (epoch seconds), the
# header of the report before this one.
ComposeSeries = Callable[[Sequence[Dataset], Analysis, float, Sequence[Dataset]], Report]


class _Stopping(Exception):
    """The node is to stop, and this job would take longer than it has."""


class SeriesTouch:
    """Tells the completion of series which images a detector of whole series wants."""

    def __init__(self, analyser: Analyser, completion: Completion) -> None:
        self._analyser = analyser
        self._completion = completion

    def wanted_by(self, name: str) -> bool:
        """Say whether a detector looks at whole series."""
        return self._analyser.looks_at_series(name)

    def touch(self, tx: Connection, instance: InstanceRow, header: Dataset) -> None:
        """Say, in the commit that ends the job of an image, that such a detector wants its series."""
        self._completion.touch(tx, instance, announcement(elements(header, (_COUNT,))[_COUNT]))


@dataclass(slots=True)
class _Series:
    """One leased job on its way: the images that each detector is to see, in order, and what it said."""

    lease: Lease
    row: SeriesRow
    images: dict[str, list[SeriesImage]] = field(default_factory=dict)
    decision: Decision = field(default_factory=Decision)
    unreadable: int = 0
    analyses: dict[str, Analysis] = field(default_factory=dict)
    views: dict[str, dict[int, View]] = field(default_factory=dict)
    detectors: dict[str, str] = field(default_factory=dict)  # by result


class SeriesWorker:
    """Works through the completed series of one node; arguments as of `Worker`.

    When `stopping` says that the node stops, the job is given back between two images, and this was no try.
    """

    def __init__(
        self,
        stores: Stores,
        *,
        completion: Completion,
        results: Results,
        rules: Rules,
        analyser: Analyser,
        compose: ComposeSeries,
        settings: DetectSettings,
        actor: Actor,
        owner: str,
        log: Any,
        stopping: Callable[[], bool],
        illustrate: ComposeSecondary | None = None,
        shadows: Shadows | None = None,
    ) -> None:
        self._stores = stores
        self._completion = completion
        self._results = results
        self._rules = rules
        self._analyser = analyser
        self._compose = compose
        self._settings = settings
        self._actor = actor
        self._owner = owner
        self._log = log
        self._stopping = stopping
        self._shadows = shadows
        self._illustrator = Illustrator(illustrate, log)
        self._tries = Tries(stores, results, settings.max_attempts, log)

    def step(self) -> int:
        """Make the jobs of series that are complete now, work on one job; return how many there were to work on."""
        for done in self._completion.decide():
            self._log.info("series_complete", series=done.series, study=done.study, count=done.images)
        due = self._stores.queue.next_due(JobKind.SERIES)
        if due is None or due > self._stores.clock():  # most often; a lease would keep other writers waiting
            return 0
        seconds = self._settings.load_seconds + self._settings.series_seconds + GRACE_SECONDS
        leases = self._stores.queue.lease(JobKind.SERIES, self._owner, seconds, 1)
        with deadline(2 * seconds):  # whoever takes longer than a lease has lost it anyway
            for lease in leases:
                self._tries.guarded(lease, self._work, lease)
        return len(leases)

    def next_due(self) -> float | None:
        """Return when (epoch seconds) the next step has something to do, as far as is known."""
        due = (self._completion.next_due(), self._stores.queue.next_due(JobKind.SERIES))
        return min((value for value in due if value is not None), default=None)

    def _work(self, lease: Lease) -> None:
        """Do one job."""
        reach("series-leased")
        if self._tries.hopeless(lease):
            return
        started = time.monotonic()
        with reading(self._stores.engine) as tx:
            row = find_series(tx, lease.subject)
            kept = [] if row is None else images_of(tx, row)
        if row is None:  # an operator's retry of a job that a later one of the same series has followed
            with self._tries.settling(lease) as tx:
                self._stores.queue.finish(tx, lease)
            return
        try:
            with self._tries.watchdog(self._settings.series_seconds):
                work = self._open(lease, row, kept)
                for name, images in work.images.items():
                    work.analyses[name] = self._analyse(work, name, images)
                    work.views[name] = self._show(work, work.analyses[name], images)
        except _Stopping:
            with self._tries.settling(lease) as tx:
                self._stores.queue.postpone(tx, lease, 0.0, "stopping", counted=False)
            return
        reach("series-detected")
        self._close(work, len(kept), started)
        if self._shadows is not None:
            for name, images in work.images.items():
                if work.analyses[name].reason is None:
                    seen = Seen(images[0].row, images[0].header, work.analyses[name])
                    with suppress(_Stopping):
                        self._shadows.look_at_series(name, seen, partial(self._detect, images=images))

    def _open(self, lease: Lease, row: SeriesRow, kept: Sequence[InstanceRow]) -> _Series:
        """Read the headers and see what the rules want; images of a detector are in order."""
        work = _Series(lease, row)
        for instance in kept:
            self._check_time()
            read = self._read(instance)
            if read is None:
                work.unreadable += 1
                continue
            header, decision = read
            names = [name for name in decision.detect if self._analyser.looks_at_series(name)]
            if names and is_image(header):
                work.decision |= decision
                image = SeriesImage.of(instance, header)
                for name in names:
                    work.images.setdefault(name, []).append(image)
        if work.unreadable and not work.images:
            raise SealBroken("No image of the series can be read.")
        for images in work.images.values():
            images.sort(key=SeriesImage.number)
        return work

    def _check_time(self) -> None:
        if self._stopping():
            raise _Stopping

    def _read(self, instance: InstanceRow) -> tuple[Dataset, Decision] | None:
        """Return an image's header and what the rules want for it; None when this image can never be read."""
        try:
            part10 = self._stores.vault.get(instance.object_id)
            decision = self._rules.decide(self._rules.elements(part10, instance.peer))
            return pydicom.dcmread(BytesIO(part10), stop_before_pixels=True), decision
        except Exception as error:  # libraries raise anything on what a peer sent
            if isinstance(error, MemoryError) or (isinstance(error, RadnodeError) and error.retry):
                raise
            return None

    def _analyse(self, work: _Series, name: str, images: list[SeriesImage]) -> Analysis:
        """Return what one detector says about its images, which are put in order along the normal."""
        loaded = self._analyser.load_series(name)
        if self._tries.exhausted(work.lease):
            return declined(name, loaded, Reason.TOO_MANY_ATTEMPTS)
        if loaded is None:
            return declined(name, loaded, Reason.MODEL_UNAVAILABLE)
        if work.unreadable:
            return declined(name, loaded, Reason.IMAGE_UNREADABLE)
        try:
            answer = self._detect(loaded, images)
        except DetectionError as error:
            answer = error
        return declined(name, loaded, answer.reason) if isinstance(answer, DetectionError) else answer

    def _detect(self, loaded: LoadedSeries, images: list[SeriesImage]) -> Analysis | DetectionError:
        """Show images to a detector.

        Raises:
            DetectionError: the gate declines the series, or an image of it cannot be decoded.
        """
        spec = loaded.detector.volume
        for image in images:
            check(image.header, loaded.accepts)
        if len(images) < spec.min_slices:
            raise DetectionError(Reason.TOO_FEW_IMAGES)
        if len(images) > spec.max_slices:
            raise DetectionError(Reason.TOO_MANY_IMAGES)
        places = [image.where for image in images if image.where is not None]
        if len(places) < len(images) or len({image.row.patient for image in images}) > 1:
            raise DetectionError(Reason.NOT_A_VOLUME)
        order, step_mm = in_order(places)
        images[:] = [images[index] for index in order]
        builder = VolumeBuilder(spec, len(images), step_mm)
        for index, image in enumerate(images):
            self._check_time()
            part10 = self._stores.vault.get(image.row.object_id)
            builder.put(index, self._analyser.decode_one(part10, spec.size))
        return loaded.detector.detect(builder.finish())

    def _show(self, work: _Series, analysis: Analysis, images: Sequence[SeriesImage]) -> dict[int, View]:
        """Return the images to make pictures of, as a monitor shows them, by their number from 1."""
        side = self._illustrator.view_side(work.decision)
        views: dict[int, View] = {}
        for number in analysis.pictured(len(images)) if side else ():
            part10 = self._stores.vault.get(images[number - 1].row.object_id)
            with suppress(DetectionError):  # it was decoded a moment ago; then the report goes without it
                view = self._analyser.decode_one(part10, side, side).view
                views |= {} if view is None else {number: view}
        return views

    def _close(self, work: _Series, count: int, started: float) -> None:
        """Commit what came of one job: results, reports to deliver, audit, and the end of the lease."""

        def commit(tx: Connection, prepared: list[Prepared]) -> None:
            self._results.commit(tx, prepared, work.decision, self._actor)
            for result in prepared:
                add_series_result(tx, work.row, work.detectors[result.row.result], result.row.result)

        about = {"series": work.row.series, "study": work.row.study, "job": work.lease.job_id, "count": count}

        def tell(result: Prepared) -> None:
            say = self._log.warning if result.analysis.outcome is Outcome.FAILED else self._log.info
            say("series_analysed", **about, **told(result, started))

        self._tries.close(work.lease, list(work.analyses.values()), partial(self._prepare, work), commit, tell)

    def _prepare(self, work: _Series) -> list[Prepared]:
        """Make results and reports durable; the first image of a detector stands for its series."""
        prepared: list[Prepared] = []
        try:
            for name, analysis in work.analyses.items():
                images = work.images[name]
                first = images[0]
                read = self._read(first.row)
                headers = [first.header if read is None else read[0], *(image.header for image in images[1:])]
                received = max(image.row.received for image in images)
                report = self._compose(headers, analysis, received, self._before(work.row, name))
                source = {**elements(first.header, UIDS), **elements(first.header, ("PatientID",))}
                uids = [elements(header, ("SOPInstanceUID",))["SOPInstanceUID"] for header in headers]
                secondary = self._illustrator.objects(
                    headers, analysis, received, report, work.decision, work.views[name]
                )
                result = self._results.prepare(first.row, source, analysis, report, images=uids, secondary=secondary)
                if result is not None:
                    prepared.append(result)
                    work.detectors[result.row.result] = name
        except RadnodeError:
            self._results.discard(prepared)
            raise
        return prepared

    def _before(self, row: SeriesRow, detector: str) -> list[Dataset]:
        """Return the header of the last report of a detector on the series, if there is one."""
        with reading(self._stores.engine) as tx:
            report_id = last_report(tx, row, detector)
        if report_id is None:
            return []
        return [report_header(self._stores.vault.get(report_id))]
