"""The index of storage commitments: what peers asked this node to commit and was not answered yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.errors import NotFoundError
from radnode.jobs.schema import commitments


@dataclass(frozen=True, slots=True)
class CommitmentRow:
    """One request. `commitment` is the pseudonym of peer and Transaction UID, `content` that of the sealed request.

    `object_id` is None once the peer has taken the answer. `received` is in epoch seconds.
    """

    commitment: str
    peer: str
    content: str
    object_id: bytes | None
    received: float


def add_commitment(tx: Connection, row: CommitmentRow) -> bool:
    """Insert a request; False when the transaction is known, and nothing was written."""
    statement = upsert(commitments).on_conflict_do_nothing(index_elements=["commitment"]).values(asdict(row))
    return tx.execute(statement).rowcount == 1


def get_commitment(tx: Connection, commitment: str) -> CommitmentRow:
    """Return the request of that pseudonym.

    Raises:
        NotFoundError: there is none.
    """
    row = tx.execute(select(commitments).where(commitments.c.commitment == commitment)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no storage commitment {commitment}.")
    return CommitmentRow(**row._mapping)


def close_commitment(tx: Connection, commitment: str) -> None:
    """Say that a request was answered; its sealed object is named no more, and its transaction stays known."""
    tx.execute(update(commitments).where(commitments.c.commitment == commitment).values(object_id=None))
