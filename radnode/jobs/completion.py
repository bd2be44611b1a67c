"""Completion: one job for each series that is ready for a detector of whole series.

    an image of it was looked at -> touch: a row says when to look at the series   (in the commit that ends its job)
    that time has come           -> decide: not ready, look again; or ready: its images, one job, no more looks
    another image comes later    -> touch: the same again, and the next job has the next generation

Everything is in the database: who dies between two steps has lost nothing, and whoever looks next goes on. What is
ready is counted in the index, not in memory, and by numbers rather than by times. The transaction of `decide` makes the
job one, however many processes decide; the next is not made while the last one of the series is alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy import insert as insert_rows
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ColumnElement

from radnode.failpoints import reach
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import InstanceRow
from radnode.jobs.queue import Queue
from radnode.jobs.schema import instances, jobs, series, series_images
from radnode.model import JobKind, JobState, Priority
from radnode.readiness import Sight, look, ready_at
from radnode.settings import CompletionSettings

BUSY_SECONDS = 2.0  # how long to wait for the end of a series' last job before the next look
_LOOKS = 64  # series that one call of `decide` looks at
_WATCHED = text("due IS NOT NULL")  # as text: SQLite uses a partial index only where its condition is repeated
_IS_DUE = and_(_WATCHED, or_(series.c.due <= bindparam("now"), series.c.due > bindparam("horizon")))

# Made once: building a statement anew costs more than running it.
_DUE = select(series.c.series, series.c.study).where(_IS_DUE)
_NEXT_DUE = select(func.min(series.c.due)).where(_WATCHED)
_THIS = select(series).where(series.c.series == bindparam("name"), series.c.study == bindparam("of"), _IS_DUE)


def _touch() -> Insert:
    new = upsert(series)
    again = {
        "due": case((series.c.due < new.excluded.due, series.c.due), else_=new.excluded.due),
        "first": case((series.c.due.is_(None), new.excluded.first), else_=series.c.first),
        "expected": case(
            (series.c.expected.is_(None), new.excluded.expected),
            (new.excluded.expected > series.c.expected, new.excluded.expected),
            else_=series.c.expected,
        ),
    }
    return new.on_conflict_do_update(index_elements=["series", "study"], set_=again)


_TOUCH = _touch()


@dataclass(frozen=True, slots=True)
class Completed:
    """One series whose job was made: pseudonyms, which of its jobs it is (from 1), and its number of images."""

    series: str
    study: str
    generation: int
    images: int


@dataclass(frozen=True, slots=True)
class WaitingSeries:
    """One series that has images in no job: pseudonyms, the generation of its last job, and what is known of it.

    `waiting` of its `kept` images are in no job, `expected` is how many there are to be. `since` when they wait, when
    the `last` image came and when the next look is `due`: in epoch seconds.
    """

    series: str
    study: str
    generation: int
    waiting: int
    kept: int
    expected: int | None
    since: float
    last: float
    due: float


def subject_of(name: str, generation: int) -> str:
    """Return the subject of the job of one generation of a series."""
    return f"{name}.{generation}"


class Completion:
    """The series of one database."""

    def __init__(
        self, engine: Engine, queue: Queue, settings: CompletionSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._settings = settings
        self._clock = clock

    def touch(self, tx: Connection, image: InstanceRow, announced: int | None) -> None:
        """Say, in the caller's transaction, that a detector of whole series wants the series of this image.

        `announced` is how many images the series is to have by this one's header. An image twice changes nothing.
        """
        now = self._clock()
        soon = announced is not None or self._settings.expected_instances > 0  # each image may be the last one
        due = now if soon else now + self._settings.quiet_seconds
        values = {"series": image.series, "study": image.study, "patient": image.patient, "expected": announced}
        tx.execute(_TOUCH, {**values, "generation": 0, "kept": 0, "first": now, "last": now, "due": due})

    def decide(self) -> list[Completed]:
        """Look at every series whose time has come; return those that are complete, each with its job made."""
        now = self._clock()
        with reading(self._engine) as tx:
            keys = tx.execute(_DUE.limit(_LOOKS), self._times(now)).all()
        found = (self._look(name, study, now) for name, study in keys)
        return [completed for completed in found if completed is not None]

    def next_due(self) -> float | None:
        """Return when (epoch seconds) the next look is due; None when no series is watched."""
        with reading(self._engine) as tx:
            due: float | None = tx.scalar(_NEXT_DUE)
        return due

    def waiting(self) -> list[WaitingSeries]:
        """Return the series that have images in no job, the longest waiting first."""
        with reading(self._engine) as tx:
            rows = tx.execute(select(series).where(_WATCHED).order_by(series.c.first, series.c.series)).all()
            counted = [(row, _count(tx, row.series, row.study)) for row in rows]
        return [
            WaitingSeries(
                row.series,
                row.study,
                row.generation,
                count.waiting,
                count.kept,
                self._settings.expected_instances or row.expected,
                min(row.first, count.oldest),
                count.newest,
                row.due,
            )
            for row, count in counted
            if count.waiting
        ]

    def _times(self, now: float) -> dict[str, float]:
        """What `_DUE` asks for. No look is ever due later than the horizon: a later one was set by another clock."""
        return {"now": now, "horizon": now + max(self._settings.quiet_seconds, BUSY_SECONDS)}

    def _look(self, name: str, study: str, now: float) -> Completed | None:
        """Look at one series in one transaction; return it when it is complete, with its job made."""
        this = and_(series.c.series == name, series.c.study == study)
        with transaction(self._engine) as tx:
            row = tx.execute(_THIS, {**self._times(now), "name": name, "of": study}).one_or_none()
            if row is None:  # another process was quicker
                return None
            count = _count(tx, name, study)
            if not count.waiting:
                tx.execute(update(series).where(this).values(due=None))
                return None
            sight = look(
                Sight(row.kept, row.first, row.last),
                kept=count.kept, oldest=count.oldest, newest=count.newest, now=now,
            )  # fmt: skip
            values: dict[str, Any] = {"kept": sight.kept, "first": sight.first, "last": sight.last}
            due = ready_at(sight, row.expected, self._settings)
            if due <= now and self._busy(tx, name, row.generation):
                due = now + BUSY_SECONDS
            if due > now:
                tx.execute(update(series).where(this).values(due=due, **values))
                return None
            generation = _next_generation(tx, name)
            tx.execute(update(series).where(this).values(due=None, generation=generation, **values))
            chosen = select(instances.c.instance, instances.c.series, instances.c.study, literal(generation)).where(
                _of(name, study), instances.c.instance.not_in(select(series_images.c.instance))
            )
            tx.execute(insert_rows(series_images).from_select(list(series_images.c.keys()), chosen))
            urgency = int(tx.scalar(_urgency(name, study, generation)) or Priority.ROUTINE)
            self._queue.add(tx, JobKind.SERIES, subject_of(name, generation), priority=urgency)
            reach("series-uncommitted")
        reach("series-completed")
        return Completed(name, study, generation, count.kept)

    def _busy(self, tx: Connection, name: str, generation: int) -> bool:
        """Say whether the last job of a series is still to be done or being done."""
        rows = self._queue.of_subject(tx, JobKind.SERIES, subject_of(name, generation))
        return any(row.state in (JobState.READY, JobState.LEASED) for row in rows)


def _urgency(name: str, study: str, generation: int) -> Select[Any]:
    """Ask for the highest priority that an image of a generation had."""
    this = (series_images.c.series == name, series_images.c.study == study, series_images.c.generation == generation)
    images = select(series_images.c.instance).where(*this)
    analyses = (jobs.c.kind == JobKind.ANALYSE, jobs.c.subject.in_(images), jobs.c.destination == "")
    return select(func.max(jobs.c.priority)).where(*analyses)


@dataclass(frozen=True, slots=True)
class _Count:
    kept: int
    waiting: int
    oldest: float
    newest: float


def _of(name: str, study: str) -> ColumnElement[bool]:
    """The kept images of a series; by the study, which has an index."""
    return and_(instances.c.study == study, instances.c.series == name)


def _count(tx: Connection, name: str, study: str) -> _Count:
    """Count the images of a series and those of them that are in no job."""
    alone = series_images.c.instance.is_(None)
    query = (
        select(
            func.count(),
            func.count(case((alone, 1))),
            func.min(case((alone, instances.c.received))),
            func.max(instances.c.received),
        )
        .select_from(instances.outerjoin(series_images, series_images.c.instance == instances.c.instance))
        .where(_of(name, study))
    )
    kept, waiting, oldest, newest = tx.execute(query).one()
    return _Count(kept, waiting, oldest or 0.0, newest or 0.0)


def _next_generation(tx: Connection, name: str) -> int:
    """Return the number of the next job; one UID that stands in two studies counts on over both."""
    return 1 + int(tx.scalar(select(func.max(series.c.generation)).where(series.c.series == name)) or 0)
