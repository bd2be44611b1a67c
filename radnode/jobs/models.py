"""Which version of each detector is active and which one runs in its shadow: one row a change, none ever rewritten.

`under` is the change that a rollback goes back to, so that any number of activations can be undone one by one. A model
without a row was never changed on this node: of what is installed the highest version is active.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from radnode.jobs.schema import model_changes


@dataclass(frozen=True, slots=True)
class Standing:
    """How a model stands since its last change: versions, None for none; `since` in epoch seconds."""

    change: int
    model: str
    active: str | None
    shadow: str | None
    under: int | None
    since: float


def newest_change(tx: Connection) -> int:
    """Return the number of the last change of any model, 0 when there was none."""
    return int(tx.scalar(select(func.max(model_changes.c.change))) or 0)


def standing(tx: Connection, model: str) -> Standing | None:
    """Return how a model stands, None when it was never changed here."""
    mine = select(model_changes).where(model_changes.c.model == model)
    row = tx.execute(mine.order_by(model_changes.c.change.desc()).limit(1)).one_or_none()
    return None if row is None else Standing(**row._mapping)


def get_change(tx: Connection, change: int) -> Standing:
    """Return one change that is there."""
    return Standing(**tx.execute(select(model_changes).where(model_changes.c.change == change)).one()._mapping)


def record_change(
    tx: Connection, model: str, *, active: str | None, shadow: str | None, under: int | None, now: float
) -> None:
    """Add a change; from its commit on it is how the model stands."""
    tx.execute(insert(model_changes).values(model=model, active=active, shadow=shadow, under=under, since=now))
