"""The one commit of an arrival: instance, job and audit entry, all of it durable or none of it happened."""

from __future__ import annotations

from dataclasses import dataclass

from radnode.audit.events import AuditRecord
from radnode.jobs.database import transaction
from radnode.jobs.index import InstanceRow, add_instance
from radnode.model import JobKind
from radnode.stores import Stores


@dataclass(frozen=True, slots=True)
class Arrival:
    """One instance whose object is durable; `enqueue` says whether the worker is to analyse it."""

    row: InstanceRow
    record: AuditRecord
    enqueue: bool


class Arrivals:
    """Commits arrivals into the stores of one node."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def commit(self, arrival: Arrival) -> bool:
        """Keep an instance; False, and nothing was written, when one of its UID is kept already.

        Raises:
            StoreUnavailable: the database is locked, full or damaged.
            AuditError: the audit entry cannot be written, so the instance was not kept.
        """
        with transaction(self._stores.engine) as tx:
            if not add_instance(tx, arrival.row):
                return False
            if arrival.enqueue:
                self._stores.queue.add(tx, JobKind.ANALYSE, arrival.row.instance)
            self._stores.audit.record(tx, arrival.record)
        if arrival.enqueue:
            self._stores.wake("worker")
        self._stores.wake("sequencer")
        return True
