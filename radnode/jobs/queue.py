"""The durable queue: leases with fencing tokens, attempts, dead letters.

A job is READY until a worker leases it. The lease carries a random token; finishing, postponing or burying a job asks
for that token in the same statement, so that a worker whose lease ran out and passed to another can change nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.errors import NotFoundError, StaleLease
from radnode.jobs.database import reading, transaction
from radnode.jobs.schema import jobs
from radnode.model import JobKind, JobState, Lease
from radnode.prepared import OpenTransaction, Prepared


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


# Text, not parameters: SQLite uses a partial index only where the query repeats its condition word for word. (As a
# Boolean column SQLAlchemy would write `state = 'ready' = 1`, which no index has.)
_READY = text("state = 'ready'")
_LEASED = text("state = 'leased'")
_INSERT = Prepared(
    upsert(jobs).on_conflict_do_nothing(),
    ["kind", "subject", "destination", "state", "priority", "due", "created", "updated"],
)
_COLUMNS = [jobs.c[name] for name in JobRow.__dataclass_fields__]


class Queue:
    """The jobs of one database."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def add(self, tx: OpenTransaction, kind: JobKind, subject: str, destination: str = "", priority: int = 0) -> None:
        """Enqueue inside the caller's transaction; the same job a second time changes nothing."""
        self.add_all(tx, kind, [subject], destination, priority)

    def add_all(
        self, tx: OpenTransaction, kind: JobKind, subjects: Sequence[str], destination: str = "", priority: int = 0
    ) -> None:
        """Enqueue one job for each subject, at least one, in their order."""
        now = self._clock()
        job: dict[str, object] = {
            "kind": kind.value,
            "destination": destination,
            "state": JobState.READY.value,
            "priority": priority,
        }
        job |= {"due": now, "created": now, "updated": now}
        _INSERT.run(tx, [{**job, "subject": subject} for subject in subjects])

    def lease(self, kind: JobKind, owner: str, seconds: float, limit: int = 1, destination: str = "") -> list[Lease]:
        """Take up to `limit` due jobs, highest priority and longest waiting first; expired leases count as ready.

        An analysis that was tried before is leased alone: what killed its worker must not cost others an attempt.
        """
        now = self._clock()
        expired = {"state": JobState.READY, "due": now}
        wanted = (_READY, jobs.c.kind == kind, jobs.c.destination == destination, jobs.c.due <= now)
        order = (jobs.c.priority.desc(), jobs.c.due, jobs.c.job)
        with transaction(self._engine) as tx:
            tx.execute(update(jobs).where(_LEASED, jobs.c.expires <= now).values(expired))
            rows = tx.execute(select(jobs).where(*wanted).order_by(*order).limit(limit)).all()
            if kind is JobKind.ANALYSE and rows and rows[0].attempts:
                rows = rows[:1]
            elif kind is JobKind.ANALYSE:
                rows = [row for row in rows if not row.attempts]
            leases = [
                Lease(
                    job_id=row.job,
                    kind=kind,
                    subject=row.subject,
                    destination=row.destination or None,
                    attempt=row.attempts + 1,
                    token=secrets.token_hex(16),
                    expires=now + seconds,
                )
                for row in rows
            ]
            for lease in leases:
                values: dict[str, object] = {"state": JobState.LEASED, "attempts": lease.attempt, "token": lease.token}
                values |= {"owner": owner, "expires": lease.expires, "updated": now}
                tx.execute(update(jobs).where(jobs.c.job == lease.job_id).values(values))
        return leases

    def finish(self, tx: Connection, lease: Lease) -> None:
        """Mark the job done, in the transaction that holds its outcome.

        Raises:
            StaleLease: the job is no longer this worker's; the transaction must not commit.
        """
        self._settle(tx, lease, state=JobState.DONE, error=None)

    def bury(self, tx: Connection, lease: Lease, error: str) -> None:
        """Move the job to the dead letters; `error` is a word or sentence without patient data.

        Raises:
            StaleLease: the job is no longer this worker's.
        """
        self._settle(tx, lease, state=JobState.DEAD, error=error)

    def postpone(self, tx: Connection, lease: Lease, delay: float, error: str, *, counted: bool = True) -> None:
        """Give the job back, due again in `delay` seconds; not `counted`, this was no attempt.

        Raises:
            StaleLease: the job is no longer this worker's.
        """
        attempts = lease.attempt if counted else lease.attempt - 1
        self._settle(tx, lease, state=JobState.READY, error=error, due=self._clock() + delay, attempts=attempts)

    def conclude(self, tx: Connection, kind: JobKind, subject: str, destination: str) -> None:
        """Mark a live job done whoever holds it: what it was about has happened. Another stays as it is."""
        self._resolve(tx, kind, subject, destination, state=JobState.DONE, error=None)

    def reopen(
        self, tx: Connection, kind: JobKind, subject: str, destination: str, pause: Callable[[int], float], error: str
    ) -> None:
        """Make a live job ready whoever holds it, due after the pause that follows as many tries as it has had."""
        key = (jobs.c.kind == kind, jobs.c.subject == subject, jobs.c.destination == destination)
        attempts = tx.scalar(select(jobs.c.attempts).where(*key))
        due = self._clock() + pause(max(1, attempts or 0))
        self._resolve(tx, kind, subject, destination, state=JobState.READY, error=error, due=due)

    def release(self, owner: str, *, counted: bool = True) -> int:
        """Give back every lease of an owner, or of a role whose processes are known to be dead; return how many."""
        held = or_(jobs.c.owner == owner, jobs.c.owner.startswith(f"{owner}:", autoescape=True))
        owned = and_(_LEASED, held)
        values: dict[str, object] = {"state": JobState.READY, "token": None, "owner": None, "expires": None}
        values |= {"due": self._clock()} | ({} if counted else {"attempts": jobs.c.attempts - 1})
        with transaction(self._engine) as tx:
            return tx.execute(update(jobs).where(owned).values(values)).rowcount

    def next_due(self, kind: JobKind, destination: str = "") -> float | None:
        """Return when (epoch seconds) the next job of this kind can be leased; None when there is none."""
        mine = (jobs.c.kind == kind, jobs.c.destination == destination)
        with reading(self._engine) as tx:
            ready = tx.scalar(select(func.min(jobs.c.due)).where(_READY, *mine))
            leased = tx.scalar(select(func.min(jobs.c.expires)).where(_LEASED, *mine))
        return min((value for value in (ready, leased) if value is not None), default=None)

    def retry(self, tx: Connection, job: int) -> None:
        """Make a dead or waiting job due now, its attempts counted from zero.

        Raises:
            NotFoundError: no such job, or it is done or being worked on.
        """
        values: dict[str, object] = {"state": JobState.READY, "attempts": 0, "error": None}
        values |= {"due": self._clock(), "updated": self._clock()}
        self._change(tx, job, (JobState.DEAD, JobState.READY), values)

    def discard(self, tx: Connection, job: int) -> None:
        """Remove a dead job for good.

        Raises:
            NotFoundError: no dead job has that number.
        """
        if not tx.execute(delete(jobs).where(jobs.c.job == job, jobs.c.state == JobState.DEAD)).rowcount:
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
        query = select(*_COLUMNS).where(jobs.c.state.in_(states)).order_by(jobs.c.job).limit(limit)
        with reading(self._engine) as tx:
            return [_row(row) for row in tx.execute(query)]

    def of_subject(self, tx: Connection, kind: JobKind, subject: str) -> list[JobRow]:
        """Return the jobs of one kind about one subject."""
        query = select(*_COLUMNS).where(jobs.c.kind == kind, jobs.c.subject == subject).order_by(jobs.c.job)
        return [_row(row) for row in tx.execute(query)]

    def counts(self) -> dict[tuple[JobKind, JobState], int]:
        """Return how many jobs there are of each kind in each state."""
        query = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
        with reading(self._engine) as tx:
            return {(JobKind(kind), JobState(state)): count for kind, state, count in tx.execute(query)}

    def _settle(self, tx: Connection, lease: Lease, **changed: object) -> None:
        held = and_(jobs.c.job == lease.job_id, jobs.c.state == JobState.LEASED, jobs.c.token == lease.token)
        values = {"token": None, "owner": None, "expires": None, "updated": self._clock(), **changed}
        if not tx.execute(update(jobs).where(held).values(values)).rowcount:
            raise StaleLease(f"The lease of job {lease.job_id} has passed to another worker.")

    def _resolve(self, tx: Connection, kind: JobKind, subject: str, destination: str, **changed: object) -> None:
        """Change a live job from outside; who holds a lease of it finds that it has lost it."""
        key = (jobs.c.kind == kind, jobs.c.subject == subject, jobs.c.destination == destination)
        values = {"token": None, "owner": None, "expires": None, "updated": self._clock(), **changed}
        live = (JobState.READY, JobState.LEASED)
        tx.execute(update(jobs).where(*key, jobs.c.state.in_(live)).values(values))

    def _change(self, tx: Connection, job: int, states: Sequence[JobState], values: dict[str, object]) -> None:
        found = and_(jobs.c.job == job, jobs.c.state.in_(states))
        if not tx.execute(update(jobs).where(found).values(values)).rowcount:
            raise NotFoundError(f"Job {job} is not there, done already, or being worked on: `radnode jobs show {job}`.")


def _row(row: object) -> JobRow:
    values = {name: getattr(row, name) for name in JobRow.__dataclass_fields__}
    return JobRow(**{**values, "kind": JobKind(values["kind"]), "state": JobState(values["state"])})
