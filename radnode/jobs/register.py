"""The register of jobs, as an operator sees and changes it: what waits, what is dead, and what is to become of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    Select,
    and_,
    delete,
    func,
    literal_column,
    select,
    text,
    union_all,
    update,
)

from radnode.errors import NotFoundError
from radnode.jobs.database import reading
from radnode.jobs.schema import jobs
from radnode.model import JobKind, JobState

# Text, not a parameter: SQLite uses a partial index only where the query repeats its condition word for word. (As a
# Boolean column SQLAlchemy would write `state = 'ready' = 1`, which no index has.)
READY = text("state = 'ready'")


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as an operator sees it; times in epoch seconds."""

    job: int
    kind: JobKind
    subject: str
    destination: str
    state: JobState
    priority: int
    attempts: int
    due: float
    error: str | None
    created: float
    updated: float


_COLUMNS = [jobs.c[name] for name in JobRow.__dataclass_fields__]


class Register:
    """The jobs of one database as rows; `clock` gives epoch seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def retry(self, tx: Connection, job: int) -> None:
        """Make a dead or waiting job due now, its attempts counted from zero.

        Raises:
            NotFoundError: no such job, or it is done or being worked on.
        """
        values: dict[str, Any] = {"state": JobState.READY, "attempts": 0, "interrupted": 0, "error": None}
        values |= {"due": self._clock(), "updated": self._clock()}
        self._change(tx, job, (JobState.DEAD, JobState.READY), values)

    def discard(self, tx: Connection, job: int, *, waiting: bool = False) -> None:
        """Remove a dead job for good; one that waits too, where it is `waiting` for nobody.

        Raises:
            NotFoundError: no such job has that number.
        """
        states = (JobState.DEAD, JobState.READY) if waiting else (JobState.DEAD,)
        if not tx.execute(delete(jobs).where(jobs.c.job == job, jobs.c.state.in_(states))).rowcount:
            raise NotFoundError(f"There is no dead job {job}; `radnode jobs list` shows which there are.")

    def show(self, job: int) -> JobRow:
        """Return one job.

        Raises:
            NotFoundError: no job has that number.
        """
        with reading(self._engine) as tx:
            row = tx.execute(select(*_COLUMNS).where(jobs.c.job == job)).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no job {job}; `radnode jobs list` shows which there are.")
        return _row(row)

    def listing(self, states: Sequence[JobState], limit: int = 1000) -> list[JobRow]:
        """Return jobs in the given states, oldest first."""
        wanted = [text(f"state = '{state.value}'") for state in states]  # so that each finds its partial index
        query = union_all(*(select(select(*_COLUMNS).where(state).subquery()) for state in wanted))
        with reading(self._engine) as tx:
            return [_row(row) for row in tx.execute(query.order_by("job").limit(limit))]

    def waiting(self, kind: JobKind, limit: int) -> int:
        """Return how many jobs of a kind wait, counting no further than `limit`."""
        query: Select[int] = select(literal_column("1", Integer)).where(READY, jobs.c.kind == kind).limit(limit)
        with reading(self._engine) as tx:
            return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)

    def has_unfinished(self, *kinds: JobKind) -> bool:
        """Say whether a job of these kinds waits, is being worked on, or is dead and may be tried again."""
        states = [text(f"state = '{state.value}'") for state in JobState if state is not JobState.DONE]
        each = [select(jobs.c.job).where(state, jobs.c.kind.in_(kinds)).limit(1).subquery() for state in states]
        with reading(self._engine) as tx:
            return tx.scalar(union_all(*(select(found.c.job) for found in each)).limit(1)) is not None

    def of_subject(self, tx: Connection, kind: JobKind, subject: str) -> list[JobRow]:
        """Return the jobs of one kind about one subject."""
        query = select(*_COLUMNS).where(jobs.c.kind == kind, jobs.c.subject == subject).order_by(jobs.c.job)
        return [_row(row) for row in tx.execute(query)]

    def counts(self) -> dict[tuple[JobKind, JobState], int]:
        """Return how many jobs there are of each kind in each state."""
        query = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
        with reading(self._engine) as tx:
            return {(JobKind(kind), JobState(state)): count for kind, state, count in tx.execute(query)}

    def _change(self, tx: Connection, job: int, states: Sequence[JobState], values: dict[str, Any]) -> None:
        found = and_(jobs.c.job == job, jobs.c.state.in_(states))
        if not tx.execute(update(jobs).where(found).values(values)).rowcount:
            raise NotFoundError(f"Job {job} is not there, done already, or being worked on: `radnode jobs show {job}`.")


def _row(row: object) -> JobRow:
    values = {name: getattr(row, name) for name in JobRow.__dataclass_fields__}
    return JobRow(**{**values, "kind": JobKind(values["kind"]), "state": JobState(values["state"])})
