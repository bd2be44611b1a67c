"""Purge: a study is made unreadable for good, by destroying its key, and its rows and room are given back.

ONE transaction takes out the rows and the key of a study and writes the audit entry; from then on this node opens none
of its objects, nor does anybody who has copies of them alone. Then the room of the objects is given back, object by
object, by whoever comes next if this process dies. An image of the study that is arriving at that moment was sealed
under the old key: its commit asks for that key and fails (A700), and the modality sends it again, into a study that is
new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.errors import NotFoundError, RadnodeError
from radnode.failpoints import reach
from radnode.jobs.database import forget_overwritten, reading, transaction
from radnode.jobs.purge import (
    Removed,
    counts,
    doomed,
    expired,
    forget_commitments,
    has_work,
    is_being_sent,
    remove_study,
    spare,
    studies_of,
)
from radnode.storage.keys import destroy
from radnode.stores import Stores

PATIENCE_SECONDS = 30.0  # how long a delivery of the study that is on its way is waited for
_PAUSE_SECONDS = 0.2
_NO_STUDY = "There is no study {study} on this node."
_BATCH = 500  # objects whose room is given back between two commits


@dataclass(frozen=True, slots=True)
class Purged:
    """One study (a pseudonym) that is gone, with how many images and results."""

    study: str
    instances: int
    results: int


class Purge:
    """Purges the studies of one node; one process at a time (`radnode.maintenance`)."""

    def __init__(self, stores: Stores, sleep: Callable[[float], None] = time.sleep) -> None:
        self._stores = stores
        self._sleep = sleep

    def studies_of(self, patient: str) -> list[str]:
        """Return the studies that hold an image of a patient, both as pseudonyms."""
        with reading(self._stores.engine) as tx:
            return studies_of(tx, patient)

    def look(self, study: str) -> Purged:
        """Return what a purge of a study would take.

        Raises:
            NotFoundError: there is no such study.
        """
        with reading(self._stores.engine) as tx:
            found = Purged(study, *counts(tx, study))
        if not found.instances:
            raise NotFoundError(_NO_STUDY.format(study=study))
        return found

    def expired(self, days: float) -> tuple[list[str], list[str]]:
        """Return the studies whose last image is older than `days`: those that may go, those that have work waiting."""
        before = self._stores.clock() - days * 86_400
        with reading(self._stores.engine) as tx:
            found = expired(tx, before)
            busy = [study for study in found if has_work(tx, study)]
        return [study for study in found if study not in set(busy)], busy

    def study(self, study: str, actor: Actor, cause: str) -> Purged:
        """Purge one study; `cause` is a word for the trail: retention, request.

        Raises:
            NotFoundError: there is no such study.
            RadnodeError: it is being delivered at this moment, and was for `PATIENCE_SECONDS`.
            StoreUnavailable, AuditError: nothing was changed.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (removed := self._remove(study, actor, cause)) is None:
            if time.monotonic() >= deadline:
                raise RadnodeError(f"The study {study} is being delivered at this moment; purge it again later.")
            self._sleep(_PAUSE_SECONDS)
        reach("study-purged")
        return Purged(study, removed.instances, removed.results)

    def forget_commitments(self, days: float) -> int:
        """Forget the storage commitments that were answered more than `days` ago; return how many."""
        with transaction(self._stores.engine) as tx:
            return forget_commitments(tx, self._stores.clock() - days * 86_400)

    def reclaim(self) -> int:
        """Give back the room of everything that was purged, now or by a process that died; return how many objects.

        Raises:
            StoreUnavailable: the disk failed; what is left waits for the next purge.
        """
        count = 0
        while True:
            with reading(self._stores.engine) as tx:
                objects = doomed(tx, _BATCH)
            if not objects:
                break
            for object_id in objects:
                self._stores.vault.remove(object_id)
            reach("objects-removed")
            with transaction(self._stores.engine) as tx:
                spare(tx, objects)
            count += len(objects)
        forget_overwritten(self._stores.engine)
        return count

    def _remove(self, study: str, actor: Actor, cause: str) -> Removed | None:
        """Take out rows and key in one commit; None while something of the study is on its way to a destination."""
        with transaction(self._stores.engine) as tx:
            if is_being_sent(tx, study):
                return None
            removed = remove_study(tx, study)
            had_key = destroy(tx, study)
            if not (removed.instances or removed.patients or had_key):
                raise NotFoundError(_NO_STUDY.format(study=study))
            detail: dict[str, str | int] = {"count": removed.instances, "reason": cause}
            for patient in removed.patients or (None,):
                record = AuditRecord(events.STUDY_PURGED, actor, patient=patient, study=study, detail=detail)
                self._stores.audit.record(tx, record)
        return removed
