"""`scripts/bench queue`: what leasing costs beside millions of finished jobs, how soon a job is taken, in which order.

An empty table and a full one are measured in turns, in one process and on one disk; ratios are of medians.
"""

from __future__ import annotations

import multiprocessing
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles

from sqlalchemy import Engine

from radnode.jobs import schema
from radnode.jobs.database import create_tables, open_database, transaction
from radnode.jobs.index import InstanceRow, add_instance
from radnode.jobs.queue import Queue
from radnode.jobs.wake import Bell, Sleeper
from radnode.model import JobKind, Priority

ROUNDS = 7
JOBS = 200  # in each round, for each table
PICKED = 400
PATIENCE_SECONDS = 2.0  # as of the worker
_FINISHED = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO jobs (kind, subject, destination, state, turn, study, attempts, due, created, updated)
SELECT CASE n % 2 WHEN 0 THEN 'analyse' ELSE 'deliver' END, printf('%032x', n), '', 'done', n,
    printf('%032x', n / 200), 1, 0, 0, 0 FROM numbers
"""


@dataclass
class Table:
    """One database and what was measured on it, in milliseconds a job."""

    name: str
    engine: Engine
    queue: Queue
    add: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)


def measure(finished: int, folder: Path, say: Callable[[str], None]) -> None:
    """Measure and print; 10,000,000 finished jobs take some 2.5 GB in `folder`."""
    begun = time.monotonic()
    full = _table(folder / "full", f"{finished:,} finished jobs")
    _fill(folder / "full" / "node.db", finished)
    empty = _table(folder / "empty", "an empty table")
    size = (folder / "full" / "node.db").stat().st_size / 1e9
    say(f"{finished:,} finished jobs ({size:.1f} GB) written in {time.monotonic() - begun:.0f} s")
    for number in range(ROUNDS + 1):
        for table in (empty, full) if number % 2 else (full, empty):
            _round(table, warm=number == 0)
    say(f"\n{'milliseconds a job, medians':<34}{empty.name:>18}{full.name:>28}     ratio")
    for name, what in (
        ("add (a commit each)", "add"),
        ("lease + finish, one by one", "single"),
        ("lease + finish, batches of 8", "batch"),
    ):
        ours, theirs = median(getattr(empty, what)), median(getattr(full, what))
        say(f"{name:<34}{ours:>18.3f}{theirs:>28.3f}{theirs / ours:>9.2f}x")
    say("")
    for table, home in ((empty, folder / "empty"), (full, folder / "full")):
        _pick_up(table, home, say)
    say("")
    _order(empty, say)


def _table(folder: Path, name: str) -> Table:
    folder.mkdir()
    engine = open_database(folder / "node.db")
    create_tables(engine, schema.metadata)
    return Table(name, engine, Queue(engine))


def _fill(path: Path, count: int) -> None:
    """Write finished jobs, not durably: only that they are there matters."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        connection.execute(_FINISHED, {"count": count})
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _add(table: Table, count: int, peer: str, priority: Priority = Priority.ROUTINE) -> list[str]:
    """Keep images of one study in one commit, each with its analysis; return the subjects."""
    study = secrets.token_hex(16)
    names = [secrets.token_hex(16) for _ in range(count)]
    with transaction(table.engine) as tx:
        for name in names:
            row = InstanceRow(name, study, study, study, bytes.fromhex(name), 1, peer, time.time())
            add_instance(tx, row)
        table.queue.add_all(tx, JobKind.ANALYSE, names, priority=priority)
    return names


def _round(table: Table, *, warm: bool) -> None:
    times = {"add": 0.0, "single": 0.0, "batch": 0.0}
    with _timed(times, "add"):
        for number in range(2 * JOBS):
            _add(table, 1, f"PEER{number % 4}")
    for what, limit in (("single", 1), ("batch", 8)):
        with _timed(times, what):
            taken = 0
            while taken < JOBS:
                leases = table.queue.lease(JobKind.ANALYSE, "worker:1", 600, limit)
                taken += len(leases)
                for lease in leases:
                    with transaction(table.engine) as tx:
                        table.queue.finish(tx, lease)
    if not warm:
        table.add.append(times["add"] / (2 * JOBS))
        table.single.append(times["single"] / JOBS)
        table.batch.append(times["batch"] / JOBS)


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    times[name] += (time.perf_counter() - begun) * 1000


def _work(folder: Path, told: Connection) -> None:
    """Lease and finish whatever comes, as a worker does, and tell when each job was leased."""
    engine = open_database(folder / "node.db")
    queue = Queue(engine)
    with Sleeper(folder / "run", "worker") as sleeper:
        told.send(0.0)
        while True:
            leases = queue.lease(JobKind.ANALYSE, "worker:1", 600, 8)
            leased = time.monotonic()
            for lease in leases:
                with transaction(engine) as tx:
                    queue.finish(tx, lease)
                told.send(leased)
            if not leases:
                sleeper.sleep(PATIENCE_SECONDS)


def _pick_up(table: Table, folder: Path, say: Callable[[str], None]) -> None:
    """Say how long after the commit of an image another process, which slept, had leased its job."""
    for lease in table.queue.lease(JobKind.ANALYSE, "worker:1", 600, 1_000_000):
        with transaction(table.engine) as tx:
            table.queue.finish(tx, lease)
    bell = Bell(folder / "run")
    here, there = multiprocessing.get_context("spawn").Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_work, args=(folder, there), daemon=True)
    worker.start()
    here.recv()
    waits: list[float] = []
    for _ in range(PICKED):
        time.sleep(0.005 + 0.01 * secrets.randbelow(100) / 100)
        _add(table, 1, "PEER1")
        committed = time.monotonic()
        bell.ring("worker")
        waits.append((here.recv() - committed) * 1000)
    worker.terminate()
    worker.join()
    p50, p99 = median(waits), quantiles(waits, n=100)[98]
    say(f"pick-up by a sleeping process, {table.name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, of {PICKED}")


def _order(table: Table, say: Callable[[str], None]) -> None:
    """Say who waits for whom, in analyses."""
    mine = set(_add(table, 10_000, "CT1"))
    say(f"behind 10,000 images of one peer, a single image of another is number {_place(table, 'CR1')}")
    say(f"a single image of another study of that peer: number {_place(table, 'CT1')}")
    for _ in range(1000):
        mine |= set(_add(table, 1, "CT1"))
    say(f"behind 1,000 studies of one image each of it, too, a single image of another: number {_place(table, 'CR1')}")
    say(f"a STAT image of that peer: number {_place(table, 'CT1', Priority.STAT)}")
    routine = 0
    for _ in range(400):
        _add(table, 1, "ER1", Priority.STAT)
        routine += sum(lease.subject in mine for lease in table.queue.lease(JobKind.ANALYSE, "worker:1", 600))
    say(f"beside STAT images without end, {routine / 4:.1f} % of the analyses are routine ones")


def _place(table: Table, peer: str, priority: Priority = Priority.ROUTINE) -> int:
    """Add an image and return as which it is leased."""
    [name] = _add(table, 1, peer, priority)
    place = 1
    while [lease.subject for lease in table.queue.lease(JobKind.ANALYSE, "worker:1", 600)] != [name]:
        place += 1
    return place
