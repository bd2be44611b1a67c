"""What changed since the node last looked: the configuration, and the certificate files.

The last state of each thing is a row beside the audit entries, so that the comparison and the entry that tells of the
change are one transaction: several processes that see the same change tell of it once, and one that happened while no
process ran is told of at the next start.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Column, Connection, String, Table, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from radnode.audit.log import metadata
from radnode.errors import AuditError

audit_states = Table(
    "audit_states",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("state", String(64), nullable=False),
)


def changed(connection: Connection, states: Mapping[str, str]) -> list[str]:
    """Return the names whose state is another than when it was last noted, and note all of them.

    `states` are digests by name, at most 64 characters each. What was never noted before has not changed. Raises
    AuditError when they cannot be noted; the caller must then roll back.
    """
    try:
        known = dict(connection.execute(select(audit_states.c.name, audit_states.c.state)).tuples().all())
        fresh = [{"name": name, "state": state} for name, state in states.items() if known.get(name) != state]
        if fresh:
            statement = insert(audit_states)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["name"], set_={"state": statement.excluded.state}),
                fresh,
            )
    except SQLAlchemyError:
        raise AuditError("What changed could not be noted; look at the disk and the database.") from None
    return [row["name"] for row in fresh if row["name"] in known]


def due(connection: Connection, name: str, now: float, seconds: float) -> bool:
    """Say whether this was not said within the last `seconds` by any process, and note that it is said now.

    `now` is in epoch seconds; a clock that was set back makes it due. Raises AuditError when it cannot be noted.
    """
    try:
        said = connection.scalar(select(audit_states.c.state).where(audit_states.c.name == name))
        if said is not None and 0 <= now - float(said) < seconds:
            return False
        statement = insert(audit_states).values(name=name, state=repr(now))
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"state": repr(now)}))
    except SQLAlchemyError:
        raise AuditError("What was said could not be noted; look at the disk and the database.") from None
    return True
