"""The index: which instances are kept and what was said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select, union_all
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.errors import NotFoundError
from radnode.jobs.schema import commitments, instances, results, secondary, shadow_results
from radnode.prepared import OpenTransaction, Prepared

# Every column that names a sealed object; what none of them names is swept away.
_NAMES = (
    *(instances.c.object_id, results.c.object_id, results.c.report_id),
    *(secondary.c.object_id, commitments.c.object_id, shadow_results.c.object_id),
)


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One kept SOP instance; identifiers are pseudonyms, `received` is in epoch seconds, `size` in bytes."""

    instance: str
    series: str
    study: str
    patient: str
    object_id: bytes
    size: int
    peer: str
    received: float


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One result: the sealed findings (`object_id`) and the sealed report (`report_id`)."""

    result: str
    instance: str
    patient: str
    study: str
    model: str
    object_id: bytes
    report_id: bytes
    created: float


@dataclass(frozen=True, slots=True)
class SecondaryRow:
    """One secondary object of a result; `secondary` is RESULT.NAME, the name its kind and number, as in "sc1"."""

    secondary: str
    result: str
    object_id: bytes

    @property
    def name(self) -> str:
        """Kind and number."""
        return self.secondary.partition(".")[2]

    @property
    def kind(self) -> str:
        """What it is, as in "sc"."""
        return self.name.rstrip("0123456789")


_COLUMNS = InstanceRow.__slots__
_INSERT = Prepared(upsert(instances).on_conflict_do_nothing(index_elements=["instance"]), _COLUMNS)


def add_instance(tx: OpenTransaction, row: InstanceRow) -> bool:
    """Insert an instance; False when it is known, and nothing was written."""
    return _INSERT.run(tx, [{name: getattr(row, name) for name in _COLUMNS}]) == 1


def find_instance(tx: Connection, instance: str) -> InstanceRow | None:
    """Return the instance of that pseudonym, or None."""
    row = tx.execute(select(instances).where(instances.c.instance == instance)).one_or_none()
    return None if row is None else InstanceRow(**row._mapping)


def get_instance(tx: Connection, instance: str) -> InstanceRow:
    """Return the instance of that pseudonym.

    Raises:
        NotFoundError: it is not kept here.
    """
    row = find_instance(tx, instance)
    if row is None:
        raise NotFoundError(f"There is no instance {instance}.")
    return row


def add_result(tx: Connection, row: ResultRow) -> None:
    """Insert a result; its id is derived from instance and model, so a second one is an IntegrityError."""
    tx.execute(insert(results).values(asdict(row)))


def add_secondary(tx: Connection, rows: Sequence[SecondaryRow]) -> None:
    """Insert the secondary objects of a result that is there."""
    if rows:
        tx.execute(insert(secondary), [asdict(row) for row in rows])


def secondary_of(tx: Connection, result: str) -> list[SecondaryRow]:
    """Return the secondary objects of a result, by name."""
    query = select(secondary).where(secondary.c.result == result).order_by(secondary.c.secondary)
    return [SecondaryRow(**row._mapping) for row in tx.execute(query)]


def get_secondary(tx: Connection, identifier: str) -> SecondaryRow:
    """Return one secondary object.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = tx.execute(select(secondary).where(secondary.c.secondary == identifier)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no secondary object {identifier}.")
    return SecondaryRow(**row._mapping)


def find_result(tx: Connection, result: str) -> ResultRow | None:
    """Return the result of that id, or None."""
    row = tx.execute(select(results).where(results.c.result == result)).one_or_none()
    return None if row is None else ResultRow(**row._mapping)


def get_result(tx: Connection, result: str) -> ResultRow:
    """Return the result of that id.

    Raises:
        NotFoundError: there is none.
    """
    row = find_result(tx, result)
    if row is None:
        raise NotFoundError(f"There is no result {result}; `radnode results list` shows which there are.")
    return row


def results_on(tx: Connection, instance: str, model: str) -> list[str]:
    """Return the ids of the results of a model, as "NAME VERSION", on an image, the oldest first."""
    mine = (results.c.instance == instance, results.c.model == model)
    return list(tx.scalars(select(results.c.result).where(*mine).order_by(results.c.created)))


def last_report_on(tx: Connection, instance: str, detector: str) -> bytes | None:
    """Return the object id of the last report that any version of a detector made about an image, None for none."""
    theirs = (results.c.instance == instance) & results.c.model.startswith(f"{detector} ", autoescape=True)
    query = select(results.c.report_id).where(theirs).order_by(results.c.created.desc(), results.c.result).limit(1)
    found: bytes | None = tx.scalar(query)
    return found


def list_results(tx: Connection, patient: str | None = None, limit: int = 1000) -> list[ResultRow]:
    """Return results, newest first, of one patient (a pseudonym) or of all."""
    query = select(results).order_by(results.c.created.desc(), results.c.result).limit(limit)
    if patient is not None:
        query = query.where(results.c.patient == patient)
    return [ResultRow(**row._mapping) for row in tx.execute(query)]


def every_object(tx: Connection) -> list[bytes]:
    """Return the ids of all sealed objects that are named here."""
    return list(tx.scalars(union_all(*(select(column).where(column.is_not(None)) for column in _NAMES))))


def objects_beginning(tx: Connection, prefix: bytes) -> list[bytes]:
    """Return the ids of all sealed objects that are named here and begin with `prefix`."""
    within = [(column >= prefix) & (column < _after(prefix)) for column in _NAMES]
    query = union_all(*(select(column).where(condition) for column, condition in zip(_NAMES, within, strict=True)))
    return [row[0] for row in tx.execute(query)]


def _after(prefix: bytes) -> bytes:
    """Return the least bytes that are greater than all that begin with `prefix`."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])
