"""Holds: what does not go on for now, and since when. They outlive every process, and all processes see the same."""

from __future__ import annotations

import enum

from sqlalchemy import Connection, Engine, delete, exists, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ColumnElement

from radnode.jobs.database import reading
from radnode.jobs.schema import holds
from radnode.model import JobKind


class Hold(enum.StrEnum):
    """What can be held: work of a stage, by an operator; images that come, by the node, and why."""

    ANALYSE = "analyse"
    DELIVER = "deliver"
    QUEUE_FULL = "queue_full"
    DISK_LOW = "disk_low"
    REPOSITORY_AWAY = "repository_away"

    @property
    def text(self) -> str:
        """What it means, for an operator; no full stop, the time may follow."""
        return _TEXT[self]


_TEXT = {
    Hold.ANALYSE: "Analyses are paused (`radnode jobs resume analyse` goes on)",
    Hold.DELIVER: "Deliveries are paused (`radnode jobs resume deliver` goes on)",
    Hold.QUEUE_FULL: "Images are refused, because too many wait for their analysis (queue.max_waiting)",
    Hold.REPOSITORY_AWAY: "Images are refused, because the audit repository is away for too long (audit.syslog)",
    Hold.DISK_LOW: "Images are refused, because the disk is nearly full (storage.low_disk_percent)",
}

STAGES = {  # which hold keeps a job from being leased
    JobKind.ANALYSE: Hold.ANALYSE,
    JobKind.SERIES: Hold.ANALYSE,
    JobKind.DELIVER: Hold.DELIVER,
    JobKind.FORWARD: Hold.DELIVER,
    JobKind.COMMIT: Hold.DELIVER,
}


def hold(tx: Connection, what: Hold, now: float) -> bool:
    """Hold from now on (epoch seconds); False when it was held already, and nothing changed."""
    statement = upsert(holds).values(hold=what.value, since=now).on_conflict_do_nothing()
    return tx.execute(statement).rowcount == 1


def let_go(tx: Connection, what: Hold) -> bool:
    """Hold no longer; False when it was not held."""
    return tx.execute(delete(holds).where(holds.c.hold == what.value)).rowcount == 1


def held(engine: Engine) -> dict[Hold, float]:
    """Return what is held, and since when (epoch seconds)."""
    with reading(engine) as tx:
        return {Hold(row.hold): row.since for row in tx.execute(select(holds).order_by(holds.c.since))}


def is_held(what: Hold) -> ColumnElement[bool]:
    """The condition, for another statement, that it is held."""
    return exists().where(holds.c.hold == what.value)
