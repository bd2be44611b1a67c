"""The durable queue: leases with fencing tokens, fair order, attempts, dead letters.

A job is READY until a worker leases it. The lease carries a random token; finishing, postponing or burying a job asks
for that token in the same statement, so that a worker whose lease ran out and passed to another can change nothing.

Among due jobs the higher priority goes first, then the lower turn (`radnode.jobs.turns`), then who has been due
longest. However many jobs of a higher priority come, one in `SHARE` is taken from below, so that none waits for ever.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    bindparam,
    case,
    delete,
    func,
    not_,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.errors import StaleLease
from radnode.jobs import turns
from radnode.jobs.database import BUSY_SECONDS, reading, transaction
from radnode.jobs.holds import STAGES, is_held
from radnode.jobs.register import READY, JobRow, Register
from radnode.jobs.schema import jobs
from radnode.model import JobKind, JobState, Lease, Priority
from radnode.prepared import OpenTransaction, Prepared

SHARE = 8  # of so many leased jobs at least one comes from below the highest priority, where one waits there
MAX_INTERRUPTED = 10  # deaths of the whole node that are no attempt of a job that it held; more are its own doing

_LEASED = text("state = 'leased'")  # as text, like READY
_ORDER = (jobs.c.priority.desc(), jobs.c.turn, jobs.c.due, jobs.c.job)
_INSERT = Prepared(upsert(jobs).on_conflict_do_nothing(), turns.COLUMNS)
_INSERT_ANALYSES = turns.insert_analyses()
_UNHELD: dict[str, object] = {"state": JobState.READY, "token": None, "owner": None, "expires": None}
_TAKE = Prepared(
    update(jobs).where(jobs.c.job == bindparam("taken")),
    ("state", "owner", "updated", "attempts", "token", "expires"),
)
_FREE = update(jobs).values(token=null(), owner=null(), expires=null())
_EXPIRE = Prepared(_FREE.where(_LEASED, jobs.c.expires <= bindparam("now")), ("state", "due", "updated"))
_FREED = _FREE.where(jobs.c.job == bindparam("held"), _LEASED, jobs.c.token == bindparam("fence"))
_END = Prepared(_FREED, ("state", "error", "updated"))
_GIVE_BACK = Prepared(
    _FREED.values(turn=turns.turn_of_who_comes_back()), ("state", "error", "updated", "due", "attempts")
)


class Queue(Register):
    """The jobs of one database: its register, and who works on what."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        super().__init__(engine, clock)
        self._latest = 0.0  # what the clock said last; before the first look it may have said anything
        self._ahead: dict[tuple[JobKind, str], int] = {}  # how many jobs were leased since one from below was
        self._lowest_next: dict[tuple[JobKind, str], bool] = {}  # whether that one is to be of the lowest priority

    def add(self, tx: OpenTransaction, kind: JobKind, subject: str, destination: str = "", priority: int = 0) -> None:
        """Enqueue inside the caller's transaction; the same job a second time changes nothing."""
        self.add_all(tx, kind, [subject], destination, priority)

    def add_all(
        self, tx: OpenTransaction, kind: JobKind, subjects: Sequence[str], destination: str = "", priority: int = 0
    ) -> None:
        """Enqueue one job for each subject, at least one, in their order; higher `priority` (`Priority`) goes first.

        An analysis takes its turn after others of its study and peer: its instance is in the index by then.
        """
        now = self._clock()
        job: dict[str, object] = {
            "kind": kind.value,
            "destination": destination,
            "state": JobState.READY.value,
            "priority": int(priority),
        }
        job |= {"due": now, "created": now, "updated": now}
        if kind is JobKind.ANALYSE:
            job["urgency"] = int(priority)
            _INSERT_ANALYSES.run(tx, [{**job, "subject": subject, "image": subject} for subject in subjects])
        else:
            _INSERT.run(tx, [{**job, "subject": subject} for subject in subjects])

    def repeat(self, tx: Connection, kind: JobKind, subject: str) -> JobRow | None:
        """Have what is done or given up done once more, behind what waits; None where it is still to be done anyway."""
        if any(row.state in (JobState.READY, JobState.LEASED) for row in self.of_subject(tx, kind, subject)):
            return None
        tx.execute(delete(jobs).where(jobs.c.kind == kind, jobs.c.subject == subject, jobs.c.destination == ""))
        self.add(tx, kind, subject)
        [row] = self.of_subject(tx, kind, subject)
        return row

    def lease(self, kind: JobKind, owner: str, seconds: float, limit: int = 1, destination: str = "") -> list[Lease]:
        """Take up to `limit` due jobs in fair order, none while their stage is held; expired leases count as ready.

        An analysis that was tried before is leased alone: what killed its worker must not cost others an attempt.
        """
        now = self._clock()
        wanted = (READY, jobs.c.kind == kind, jobs.c.destination == destination, jobs.c.due <= now)
        query = select(jobs).where(*wanted, not_(is_held(STAGES[kind]))).order_by(*_ORDER)
        with transaction(self._engine) as tx:
            self._heed_clock(tx, now)
            _EXPIRE.run(tx, [{"now": now, "state": JobState.READY.value, "due": now, "updated": now}])
            rows = self._first(tx, query, (kind, destination), limit)
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
            if leases:
                common: dict[str, object] = {"state": JobState.LEASED.value, "owner": owner, "updated": now}
                _TAKE.run(
                    tx,
                    [
                        {**common, "taken": it.job_id, "attempts": it.attempt, "token": it.token, "expires": it.expires}
                        for it in leases
                    ],
                )
        return leases

    def finish(self, tx: OpenTransaction, lease: Lease) -> None:
        """Mark the job done, in the transaction that holds its outcome.

        Raises:
            StaleLease: the job is no longer this worker's; the transaction must not commit.
        """
        self._settle(tx, _END, lease, state=JobState.DONE.value, error=None)

    def bury(self, tx: OpenTransaction, lease: Lease, error: str) -> None:
        """Move the job to the dead letters; `error` is a word or sentence without patient data.

        Raises:
            StaleLease: the job is no longer this worker's.
        """
        self._settle(tx, _END, lease, state=JobState.DEAD.value, error=error)

    def postpone(self, tx: OpenTransaction, lease: Lease, delay: float, error: str, *, counted: bool = True) -> None:
        """Give the job back, due again in `delay` seconds; not `counted`, this was no attempt.

        Raises:
            StaleLease: the job is no longer this worker's.
        """
        attempts = lease.attempt if counted else lease.attempt - 1
        due = self._clock() + delay
        self._settle(tx, _GIVE_BACK, lease, state=JobState.READY.value, error=error, due=due, attempts=attempts)

    def conclude(self, tx: Connection, kind: JobKind, subject: str, destination: str) -> None:
        """Mark a job done whoever holds it, and though it was given up: what it was about has happened."""
        states = (JobState.READY, JobState.LEASED, JobState.DEAD)
        self._resolve(tx, kind, subject, destination, states, state=JobState.DONE, error=None)

    def reopen(
        self, tx: Connection, kind: JobKind, subject: str, destination: str, pause: Callable[[int], float], error: str
    ) -> None:
        """Make a live job ready whoever holds it, due after the pause that follows as many tries as it has had."""
        key = (jobs.c.kind == kind, jobs.c.subject == subject, jobs.c.destination == destination)
        attempts = tx.scalar(select(jobs.c.attempts).where(*key))
        due = self._clock() + pause(max(1, attempts or 0))
        states = (JobState.READY, JobState.LEASED)
        self._resolve(tx, kind, subject, destination, states, state=JobState.READY, error=error, due=due)

    def release(self, owner: str, *, counted: bool = True) -> int:
        """Give back every lease of an owner, or of a role whose processes are known to be dead; return how many."""
        return self._release(owner, {} if counted else {"attempts": jobs.c.attempts - 1})

    def recover(self, owner: str) -> int:
        """Give back the leases of a role after the death of the whole node; return how many.

        Whatever ended the node (a power cut, kill -9, an operator), its jobs are hardly the cause: it is no attempt.
        A job that was there each time is suspected after `MAX_INTERRUPTED`: perhaps it is what takes all memory.
        """
        suspected = jobs.c.interrupted >= MAX_INTERRUPTED
        attempts = case((suspected, jobs.c.attempts), else_=jobs.c.attempts - 1)
        return self._release(owner, {"attempts": attempts, "interrupted": jobs.c.interrupted + 1})

    def next_due(self, kind: JobKind, destination: str = "") -> float | None:
        """Return when (epoch seconds) the next job of a kind can be leased; None when there is none or it is held."""
        mine = (jobs.c.kind == kind, jobs.c.destination == destination, not_(is_held(STAGES[kind])))
        with reading(self._engine) as tx:
            ready = tx.scalar(select(func.min(jobs.c.due)).where(READY, *mine))
            leased = tx.scalar(select(func.min(jobs.c.expires)).where(_LEASED, *mine))
        return min((value for value in (ready, leased) if value is not None), default=None)

    def _first(self, tx: Connection, query: Select[Any], queue: tuple[JobKind, str], limit: int) -> list[Row[Any]]:
        """Return the jobs whose turn it is, at most `limit`, the first one perhaps from a lower priority."""
        rows = list(tx.execute(query.limit(limit)))
        if len(rows) < limit or rows[-1].priority <= Priority.ROUTINE:  # those below are reached anyway
            self._ahead[queue] = 0
            return rows
        self._ahead[queue] = self._ahead.get(queue, 0) + limit
        if self._ahead[queue] < SHARE:
            return rows
        lowest = self._lowest_next.get(queue, False)
        ceiling = Priority.ROUTINE + 1 if lowest else rows[-1].priority
        below = tx.execute(query.where(jobs.c.priority < ceiling).limit(1)).one_or_none()
        self._lowest_next[queue] = not lowest
        if below is None:
            return rows
        self._ahead[queue] = 0
        return [below, *rows[: limit - 1]]

    def _heed_clock(self, tx: Connection, now: float) -> None:
        """After the clock was set back, let what it dated in the future count from now on.

        What waits would wait as long as the clock went back; what is leased keeps its whole term, so that nobody else
        takes it while it is being worked on, and is free again no later than that.
        """
        if now < self._latest or not self._latest:
            late = jobs.c.updated > now + BUSY_SECONDS  # others may have waited that long with the time they read
            tx.execute(update(jobs).where(READY, late, jobs.c.due > now).values(due=now, updated=now))
            term = jobs.c.expires - jobs.c.updated
            tx.execute(update(jobs).where(_LEASED, late).values(expires=now + term, updated=now))
        self._latest = now

    def _release(self, owner: str, changed: dict[str, Any]) -> int:
        held = or_(jobs.c.owner == owner, jobs.c.owner.startswith(f"{owner}:", autoescape=True))
        values = {**_UNHELD, "due": self._clock(), "updated": self._clock(), **changed}
        with transaction(self._engine) as tx:
            return tx.execute(update(jobs).where(_LEASED, held).values(values)).rowcount

    def _settle(self, tx: OpenTransaction, statement: Prepared, lease: Lease, **changed: object) -> None:
        fence = {"held": lease.job_id, "fence": lease.token, "updated": self._clock()}
        if not statement.run(tx, [{**fence, **changed}]):
            raise StaleLease(f"The lease of job {lease.job_id} has passed to another worker.")

    def _resolve(
        self,
        tx: Connection,
        kind: JobKind,
        subject: str,
        destination: str,
        states: Sequence[JobState],
        **changed: object,
    ) -> None:
        """Change a job in one of these states from outside; who holds a lease of it finds that it has lost it."""
        key = (jobs.c.kind == kind, jobs.c.subject == subject, jobs.c.destination == destination)
        values = {"token": None, "owner": None, "expires": None, "updated": self._clock(), **changed}
        tx.execute(update(jobs).where(*key, jobs.c.state.in_(states)).values(values))
