"""The index of objects that a destination has taken and has not committed yet (PS3.4 Annex J)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.jobs.schema import sendings
from radnode.model import JobKind, Lease


@dataclass(frozen=True, slots=True)
class SendingRow:
    """One object at one destination: that of the delivery job (kind, subject, destination).

    `instance` is the pseudonym of its SOP instance, `transaction_id` that of the transaction in which it was asked for
    last. `asks` is how often, `asked` when (epoch seconds) the last of these was accepted; None: not since it was sent.
    """

    kind: JobKind
    subject: str
    destination: str
    instance: str
    transaction_id: str | None
    asks: int
    asked: float | None


def add_sending(tx: Connection, lease: Lease, instance: str) -> None:
    """Say that a destination has taken the object of a delivery, once more or for the first time."""
    fresh = {"instance": instance, "transaction_id": None, "asks": 0, "asked": None}
    values = {"kind": lease.kind, "subject": lease.subject, "destination": lease.destination, **fresh}
    key = [sendings.c.kind, sendings.c.subject, sendings.c.destination]
    tx.execute(upsert(sendings).values(values).on_conflict_do_update(index_elements=key, set_=fresh))


def find_sending(tx: Connection, kind: JobKind, subject: str, destination: str) -> SendingRow | None:
    """Return what is known of a delivery whose object was taken; None: it was not, or it is committed."""
    row = tx.execute(select(sendings).where(*_key(kind, subject, destination))).one_or_none()
    return None if row is None else _row(row)


def sendings_of(tx: Connection, destination: str, transaction_id: str) -> list[SendingRow]:
    """Return what a destination was asked for last in this transaction."""
    asked = and_(sendings.c.destination == destination, sendings.c.transaction_id == transaction_id)
    return [_row(row) for row in tx.execute(select(sendings).where(asked))]


def sendings_at(tx: Connection, destination: str, instances: Collection[str]) -> list[SendingRow]:
    """Return what of these SOP instances (pseudonyms) a destination was asked for, in whichever transaction."""
    asked = and_(sendings.c.destination == destination, sendings.c.asks > 0, sendings.c.instance.in_(instances))
    return [_row(row) for row in tx.execute(select(sendings).where(asked))]


def name_transaction(tx: Connection, leases: Sequence[Lease], transaction_id: str) -> None:
    """Say in which transaction these deliveries are asked for next."""
    for lease in leases:
        values = {"transaction_id": transaction_id}
        tx.execute(update(sendings).where(*_key(lease.kind, lease.subject, lease.destination)).values(values))


def count_ask(tx: Connection, leases: Sequence[Lease], asked: float) -> None:
    """Say that the destination has accepted to be asked for these deliveries."""
    values = {"asks": sendings.c.asks + 1, "asked": asked}
    for lease in leases:
        tx.execute(update(sendings).where(*_key(lease.kind, lease.subject, lease.destination)).values(values))


def drop_sending(tx: Connection, kind: JobKind, subject: str, destination: str) -> None:
    """Forget that an object was taken: it is committed, or it is to be sent again."""
    tx.execute(delete(sendings).where(*_key(kind, subject, destination)))


def _key(kind: JobKind, subject: str, destination: str | None) -> tuple[ColumnElement[bool], ...]:
    return sendings.c.kind == kind, sendings.c.subject == subject, sendings.c.destination == destination


def _row(row: object) -> SendingRow:
    values = {name: getattr(row, name) for name in SendingRow.__dataclass_fields__}
    return SendingRow(**{**values, "kind": JobKind(values["kind"])})
