"""The queue against a simple model: no job is lost, none is leased twice at once, a stale token changes nothing."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from radnode.errors import NotFoundError, StaleLease
from radnode.jobs import schema
from radnode.jobs.database import BUSY_SECONDS, create_tables, open_database, transaction
from radnode.jobs.holds import STAGES, Hold, hold, let_go
from radnode.jobs.queue import MAX_INTERRUPTED, Queue
from radnode.model import JobKind, JobState, Lease, Priority

SUBJECTS = st.sampled_from([f"subject-{number}" for number in range(6)])
KINDS = st.sampled_from([(JobKind.ANALYSE, ""), (JobKind.DELIVER, "pacs"), (JobKind.DELIVER, "archive")])


@dataclass
class Expected:
    """What the model knows of one job."""

    state: JobState
    due: float
    attempts: int = 0
    token: str | None = None
    expires: float = 0.0
    owner: str = ""
    updated: float = 0.0
    interrupted: int = 0


Key = tuple[JobKind, str, str]


class QueueMachine(RuleBasedStateMachine):
    """Every operation an operator, a worker, a courier, the supervisor and the clock can do."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_000_000.0
        self.latest = 0.0
        self.held: set[Hold] = set()
        self.engine = open_database(Path(self.folder.name) / "node.db")
        create_tables(self.engine, schema.metadata)
        self.queue = Queue(self.engine, lambda: self.now)
        self.jobs: dict[Key, Expected] = {}
        self.leases: list[tuple[Key, Lease]] = []

    def teardown(self) -> None:
        self.engine.dispose()
        self.folder.cleanup()

    @rule(kind=KINDS, subject=SUBJECTS)
    def add(self, kind: tuple[JobKind, str], subject: str) -> None:
        priority = Priority.STAT if subject.endswith("5") else Priority.ROUTINE
        with transaction(self.engine) as tx:
            self.queue.add(tx, kind[0], subject, kind[1], priority)
        self.jobs.setdefault((kind[0], subject, kind[1]), Expected(JobState.READY, self.now, updated=self.now))

    @rule(what=st.sampled_from([Hold.ANALYSE, Hold.DELIVER]), holds=st.booleans())
    def pause_or_resume(self, what: Hold, holds: bool) -> None:
        with transaction(self.engine) as tx:
            changed = hold(tx, what, self.now) if holds else let_go(tx, what)
        assert changed is ((what in self.held) is not holds)
        (self.held.add if holds else self.held.discard)(what)

    @rule(kind=KINDS, limit=st.integers(1, 4), owner=st.sampled_from(["worker:1", "worker:2", "deliver:1"]))
    def lease(self, kind: tuple[JobKind, str], limit: int, owner: str) -> None:
        if self.now < self.latest or not self.latest:  # the clock was set back: what it dated counts from now on
            for job in self.jobs.values():
                if job.updated > self.now + BUSY_SECONDS and job.state is JobState.READY and job.due > self.now:
                    job.due = job.updated = self.now
                elif job.updated > self.now + BUSY_SECONDS and job.state is JobState.LEASED:
                    job.expires, job.updated = self.now + job.expires - job.updated, self.now
        self.latest = self.now
        for job in self.jobs.values():
            if job.state is JobState.LEASED and job.expires <= self.now:
                job.state, job.token, job.due, job.updated = JobState.READY, None, self.now, self.now
        ready = {
            key: job
            for key, job in self.jobs.items()
            if (key[0], key[2]) == kind and job.state is JobState.READY and job.due <= self.now
            if STAGES[kind[0]] not in self.held
        }
        leases = self.queue.lease(kind[0], owner, 60.0, limit, kind[1])
        assert len({lease.job_id for lease in leases}) == len(leases) <= limit
        assert bool(leases) is bool(ready)
        if kind[0] is JobKind.ANALYSE:
            assert len(leases) == 1 or all(lease.attempt == 1 for lease in leases)
        else:
            assert len(leases) == min(limit, len(ready))
        routine = {key[1]: job for key, job in ready.items() if not key[1].endswith("5")}
        latest = max(
            (job.due for subject, job in routine.items() if subject in {it.subject for it in leases}), default=0
        )
        for lease in leases:
            key = (lease.kind, lease.subject, lease.destination or "")
            job = ready[key]
            assert lease.attempt == job.attempts + 1
            job.state, job.token, job.owner = JobState.LEASED, lease.token, owner
            job.attempts, job.expires, job.updated = lease.attempt, self.now + 60.0, self.now
            self.leases.append((key, lease))
        if kind[0] is JobKind.DELIVER:  # who waited longest goes first
            assert all(job.due >= latest for job in routine.values() if job.state is JobState.READY)
            urgent = [job.state for key, job in ready.items() if key[1].endswith("5")]
            assert not leases or JobState.READY not in urgent

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0), what=st.sampled_from(["finish", "bury", "postpone"]))
    def settle(self, which: int, what: str) -> None:
        """With a lease that may long be stale."""
        key, lease = self.leases[which % len(self.leases)]
        job = self.jobs.get(key)
        holds = job is not None and job.state is JobState.LEASED and job.token == lease.token
        try:
            with transaction(self.engine) as tx:
                if what == "finish":
                    self.queue.finish(tx, lease)
                elif what == "bury":
                    self.queue.bury(tx, lease, "word")
                else:
                    self.queue.postpone(tx, lease, 5.0, "word")
        except StaleLease:
            assert not holds
            return
        assert holds
        assert job is not None
        job.state = {"finish": JobState.DONE, "bury": JobState.DEAD, "postpone": JobState.READY}[what]
        job.token, job.due, job.updated = None, job.due if what != "postpone" else self.now + 5.0, self.now

    @rule(role=st.sampled_from(["worker", "deliver", "work"]), counted=st.sampled_from([True, False, None]))
    def release(self, role: str, counted: bool | None) -> None:
        """Give back what a dead process held, or (None) what the whole node held when it died."""
        held = [job for job in self.jobs.values() if job.token and job.owner.startswith(f"{role}:")]
        held = [job for job in held if job.state is JobState.LEASED]
        given_back = self.queue.recover(role) if counted is None else self.queue.release(role, counted=counted)
        assert given_back == len(held)
        for job in held:
            job.state, job.token, job.due, job.updated = JobState.READY, None, self.now, self.now
            if not (counted or (counted is None and job.interrupted >= MAX_INTERRUPTED)):
                job.attempts -= 1
            job.interrupted += counted is None

    @rule(seconds=st.sampled_from([0.5, 5.0, 61.0, -3600.0]))
    def pass_time(self, seconds: float) -> None:
        """Now and then the clock jumps back an hour."""
        self.now += seconds

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0), discard=st.booleans())
    def operate(self, which: int, discard: bool) -> None:
        key = list(self.jobs)[which % len(self.jobs)]
        job = self.jobs[key]
        row = next(row for row in self.queue.listing(list(JobState)) if (row.kind, row.subject, row.destination) == key)
        allowed = (JobState.DEAD,) if discard else (JobState.DEAD, JobState.READY)
        try:
            with transaction(self.engine) as tx:
                (self.queue.discard if discard else self.queue.retry)(tx, row.job)
        except NotFoundError:
            assert job.state not in allowed
            return
        assert job.state in allowed
        if discard:
            del self.jobs[key]
        else:
            job.state, job.attempts, job.due, job.updated, job.interrupted = JobState.READY, 0, self.now, self.now, 0

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "jobs"):
            return
        rows = {(row.kind, row.subject, row.destination): row for row in self.queue.listing(list(JobState))}
        assert {key: (row.state, row.attempts) for key, row in rows.items()} == {
            key: (job.state, job.attempts) for key, job in self.jobs.items()
        }
        for kind, destination in ((JobKind.ANALYSE, ""), (JobKind.DELIVER, "pacs")):
            live = [job for key, job in self.jobs.items() if (key[0], key[2]) == (kind, destination)]
            times = [job.due for job in live if job.state is JobState.READY]
            times += [job.expires for job in live if job.state is JobState.LEASED]
            times = [] if STAGES[kind] in self.held else times
            assert self.queue.next_due(kind, destination) == (pytest.approx(min(times)) if times else None)


QueueMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestQueue = QueueMachine.TestCase
