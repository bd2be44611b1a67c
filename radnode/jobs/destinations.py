"""Destinations as deliveries see them: which ones cannot be reached, since when, and what waits for each.

A row stands here as long as a destination is out of reach, so that commands of other processes can say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, Connection, Float, MetaData, String, Table, delete, func, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.jobs.schema import jobs
from radnode.model import JobKind, JobState

metadata = MetaData()
_out_of_reach = Table(
    "destinations_out_of_reach",
    metadata,
    Column("destination", String(32), primary_key=True),
    Column("since", Float, nullable=False),
    Column("error", String(200), nullable=False),
)
OUTGOING = (JobKind.DELIVER, JobKind.FORWARD)
_READY = text("state = 'ready'")  # as the partial index has it, word for word


@dataclass(frozen=True, slots=True)
class OutOfReach:
    """Since when (epoch seconds) a destination cannot be reached, and the sentence that says why."""

    since: float
    error: str


def mark_out_of_reach(tx: Connection, destination: str, since: float, error: str) -> None:
    """Say that a destination cannot be reached; a second time changes the reason."""
    row = {"destination": destination, "since": since, "error": error[:200]}
    statement = upsert(_out_of_reach).values(row)
    tx.execute(statement.on_conflict_do_update(index_elements=["destination"], set_={"error": row["error"]}))


def mark_back(tx: Connection, destination: str, now: float) -> None:
    """Say that a destination is back: whatever was put off for it is due now."""
    tx.execute(delete(_out_of_reach).where(_out_of_reach.c.destination == destination))
    waiting = (_READY, jobs.c.kind.in_(OUTGOING), jobs.c.destination == destination, jobs.c.due > now)
    tx.execute(update(jobs).where(*waiting).values(due=now, updated=now))


def out_of_reach(tx: Connection) -> dict[str, OutOfReach]:
    """Return the destinations that cannot be reached."""
    return {row.destination: OutOfReach(row.since, row.error) for row in tx.execute(select(_out_of_reach))}


def waiting(tx: Connection, destination: str) -> tuple[int, float | None]:
    """Return how many deliveries wait for a destination, and when (epoch seconds) the oldest was asked for.

    Reads the index alone: jobs are numbered in the order they come.
    """
    mine = (_READY, jobs.c.kind.in_(OUTGOING), jobs.c.destination == destination)
    count, oldest = tx.execute(select(func.count(), func.min(jobs.c.job)).where(*mine)).one()
    created = None if oldest is None else tx.scalar(select(jobs.c.created).where(jobs.c.job == oldest))
    return int(count), created


def dead_letters(tx: Connection, destination: str | None) -> list[int]:
    """Return the numbers of the dead deliveries to one destination, or of all dead jobs."""
    query = select(jobs.c.job).where(text(f"state = '{JobState.DEAD.value}'")).order_by(jobs.c.job)
    if destination is not None:
        query = query.where(jobs.c.kind.in_(OUTGOING), jobs.c.destination == destination)
    return list(tx.scalars(query))
