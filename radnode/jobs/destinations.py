"""Destinations as deliveries see them: which ones cannot be reached, since when, and what waits for each.

A row stands here as long as a destination is out of reach, so that commands of other processes can say so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    Float,
    MetaData,
    String,
    Table,
    delete,
    exists,
    func,
    not_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.jobs.register import READY
from radnode.jobs.schema import jobs, sendings
from radnode.model import JobKind, JobState

metadata = MetaData()
_out_of_reach = Table(
    "destinations_out_of_reach",
    metadata,
    Column("destination", String(32), primary_key=True),
    Column("kind", String(8), primary_key=True),  # of what it does not take: it may take reports and hang on images
    Column("since", Float, nullable=False),
    Column("error", String(200), nullable=False),
)
OUTGOING = (JobKind.DELIVER, JobKind.FORWARD)


@dataclass(frozen=True, slots=True)
class OutOfReach:
    """Since when (epoch seconds) a destination cannot be reached, and the sentence that says why."""

    since: float
    error: str


@dataclass(frozen=True, slots=True)
class Unaddressed:
    """Jobs that wait for a destination, or for a peer that asked, which the configuration does not name any more.

    `name` is how it named it, `count` how many wait, `oldest` since when (epoch seconds) the first of them does.
    """

    name: str
    is_peer: bool
    count: int
    oldest: float

    @property
    def advice(self) -> str:
        """What to do, as a sentence."""
        where = "a peer that may commit" if self.is_peer else "a destination"
        return f"Add it again as {where}, or drop them: `radnode jobs discard --destination {self.name}`."


def mark_out_of_reach(tx: Connection, destination: str, kind: JobKind, since: float, error: str) -> None:
    """Say that a destination cannot be reached; a second time changes the reason."""
    row = {"destination": destination, "kind": kind, "since": since, "error": error[:200]}
    statement = upsert(_out_of_reach).values(row)
    tx.execute(statement.on_conflict_do_update(index_elements=["destination", "kind"], set_={"error": row["error"]}))


def mark_back(tx: Connection, destination: str, kind: JobKind, now: float) -> None:
    """Say that a destination is back: what was put off for it is due now, save what it was asked to commit."""
    tx.execute(delete(_out_of_reach).where(_out_of_reach.c.destination == destination, _out_of_reach.c.kind == kind))
    this = (sendings.c.kind == jobs.c.kind, sendings.c.subject == jobs.c.subject, sendings.c.destination == destination)
    asked = exists().where(*this, sendings.c.asked.is_not(None))
    waiting = (READY, jobs.c.kind == kind, jobs.c.destination == destination, jobs.c.due > now, not_(asked))
    tx.execute(update(jobs).where(*waiting).values(due=now, updated=now))


def out_of_reach(tx: Connection, *kinds: JobKind) -> dict[str, OutOfReach]:
    """Return the destinations that cannot be reached with these kinds of jobs, each since the first of them."""
    query = (
        select(_out_of_reach).where(_out_of_reach.c.kind.in_(kinds or OUTGOING)).order_by(_out_of_reach.c.since.desc())
    )
    return {row.destination: OutOfReach(row.since, row.error) for row in tx.execute(query)}


def waiting(tx: Connection, destination: str) -> tuple[int, float | None]:
    """Return how many deliveries wait for a destination, and when (epoch seconds) the oldest was asked for.

    Reads the index alone: jobs are numbered in the order they come.
    """
    mine = (READY, jobs.c.kind.in_(OUTGOING), jobs.c.destination == destination)
    count, oldest = tx.execute(select(func.count(), func.min(jobs.c.job)).where(*mine)).one()
    created = None if oldest is None else tx.scalar(select(jobs.c.created).where(jobs.c.job == oldest))
    return int(count), created


def unaddressed(tx: Connection, destinations: Collection[str], peers: Collection[str]) -> list[Unaddressed]:
    """Return what waits for others than these destinations, and these peers that may ask for commitments."""
    known = {False: (OUTGOING, destinations), True: ((JobKind.COMMIT,), peers)}
    found = []
    for is_peer, (kinds, names) in known.items():
        lost = (READY, jobs.c.kind.in_(kinds), jobs.c.destination.not_in(names))
        query = select(jobs.c.destination, func.count(), func.min(jobs.c.job)).where(*lost).group_by(jobs.c.destination)
        for name, count, first in tx.execute(query).all():
            oldest = float(tx.scalar(select(jobs.c.created).where(jobs.c.job == first)) or 0.0)
            found.append(Unaddressed(name, is_peer, count, oldest))
    return found


def waiting_jobs(tx: Connection, lost: Unaddressed) -> list[int]:
    """Return the numbers of the jobs that wait for somebody who is not named."""
    kinds = (JobKind.COMMIT,) if lost.is_peer else OUTGOING
    mine = (READY, jobs.c.kind.in_(kinds), jobs.c.destination == lost.name)
    return list(tx.scalars(select(jobs.c.job).where(*mine).order_by(jobs.c.job)))


def dead_letters(tx: Connection, destination: str | None) -> list[int]:
    """Return the numbers of the dead deliveries to one destination, or of all dead jobs."""
    query = select(jobs.c.job).where(text(f"state = '{JobState.DEAD.value}'")).order_by(jobs.c.job)
    if destination is not None:
        query = query.where(jobs.c.kind.in_(OUTGOING), jobs.c.destination == destination)
    return list(tx.scalars(query))
