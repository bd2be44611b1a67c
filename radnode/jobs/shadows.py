"""What versions said that ran in the shadow of the active one: rows that name sealed objects, nothing to deliver."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from radnode.jobs.schema import shadow_results


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """One look of a shadow at an image, or at the series whose first image it is; `created` in epoch seconds."""

    instance: str
    model: str
    study: str
    object_id: bytes
    created: float


def add_shadow_result(tx: Connection, row: ShadowRow) -> bool:
    """Insert what a shadow said; False when it has said something about this image, and nothing was written."""
    return tx.execute(insert(shadow_results).values(asdict(row)).on_conflict_do_nothing()).rowcount == 1


def shadow_results_of(tx: Connection, model: str, limit: int) -> list[ShadowRow]:
    """Return what a model, as "NAME VERSION", said in the shadow, newest first."""
    mine = select(shadow_results).where(shadow_results.c.model == model)
    query = mine.order_by(shadow_results.c.created.desc(), shadow_results.c.instance).limit(limit)
    return [ShadowRow(**row._mapping) for row in tx.execute(query)]
