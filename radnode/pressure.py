"""Back-pressure: images are refused (A700) before the queue or the disk is full, and accepted again afterwards.

A modality keeps what was refused and sends it again; what was accepted this node must keep, analyse and report. So it
stops while there is still room for that. Each listener looks once a second, and asks nothing for an image. What is
refused is a row that all processes see (`radnode.jobs.holds`): who writes it audits it, in the same transaction, and
says it in the log, once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.errors import NodeFull, RadnodeError
from radnode.jobs.database import transaction
from radnode.jobs.holds import Hold, held, hold, let_go
from radnode.model import JobKind
from radnode.observe import describe
from radnode.settings import QueueSettings, StorageSettings
from radnode.stores import Stores

LOOK_SECONDS = 1.0  # between two looks
_MORE_FREE = 1.1  # times the mark of the disk, from which on images are accepted again


class _Sight(NamedTuple):
    """What was found: beyond the mark, not yet back behind the lower one, and in which number."""

    over: bool
    near: bool
    number: int


class Pressure:
    """Whether the node may accept images now; `folder` is on the disk that must not fill."""

    def __init__(
        self, stores: Stores, folder: Path, queue: QueueSettings, storage: StorageSettings, actor: Actor, log: Any
    ) -> None:
        self._stores = stores
        self._folder = folder
        self._queue = queue
        self._storage = storage
        self._actor = actor
        self._log = log
        self._refusal: str | None = None
        self._unwritten: set[Hold] = set()  # refused, said, and not written down
        self._failed = False  # whether the last look did

    def check(self) -> None:
        """Return when images are accepted.

        Raises:
            NodeFull: they are not.
        """
        if self._refusal is not None:
            raise NodeFull(self._refusal)

    def look(self) -> None:
        """Look at queue and disk, and refuse or accept from now on; trouble with that changes nothing and is logged."""
        try:
            before = held(self._stores.engine)
            sights = {Hold.QUEUE_FULL: self._waiting(), Hold.DISK_LOW: self._disk()}
            refused = [what for what, sight in sights.items() if sight.over or (what in before and sight.near)]
            told = [*refused, *(what for what in before if what is Hold.REPOSITORY_AWAY)]  # the sequencer looks at that
            self._refusal = f"{told[0].text}; send them again later." if told else None  # even if it stays unsaid
            self._tell(before, refused, sights)
        except (RadnodeError, OSError) as error:
            if not self._failed:
                self._log.error("pressure_unknown", **describe(error))
            self._failed = True
        else:
            self._failed = False

    def _tell(self, before: Mapping[Hold, float], refused: list[Hold], sights: Mapping[Hold, _Sight]) -> None:
        """Write down, audit and log what has changed."""
        for what, sight in sights.items():
            if (what in refused) != (what in before):
                try:
                    changed = self._write(what, sight, refusing=what in refused)
                except RadnodeError:  # the disk may be too full for that: then each process says it for itself
                    if what in refused and what not in self._unwritten:
                        self._unwritten.add(what)
                        self._say(what, sight, refusing=True)
                    raise
                if changed and what not in self._unwritten:
                    self._say(what, sight, refusing=what in refused)
                self._unwritten.discard(what)
            elif what in self._unwritten and what not in refused:
                self._unwritten.discard(what)
                self._say(what, sight, refusing=False)

    def _write(self, what: Hold, sight: _Sight, *, refusing: bool) -> bool:
        """Write down and audit a change; False when another process was quicker."""
        change = "refusing_images" if refusing else "accepting_images"
        detail: dict[str, str | int] = {"change": change, "rule": what.value, "count": sight.number}
        with transaction(self._stores.engine) as tx:
            changed = hold(tx, what, self._stores.clock()) if refusing else let_go(tx, what)
            if changed:
                self._stores.audit.record(tx, AuditRecord(events.ALERT, self._actor, detail=detail))
        return changed

    def _say(self, what: Hold, sight: _Sight, *, refusing: bool) -> None:
        if refusing:
            self._log.warning("refusing_images", rule=what.value, count=sight.number, message=f"{what.text}.")
        else:
            self._log.info("accepting_images", rule=what.value, count=sight.number)

    def _waiting(self) -> _Sight:
        """Look at the analyses that wait; `number` is how many, no further than the mark."""
        most = self._queue.max_waiting
        if not most:
            return _Sight(False, False, 0)
        count = self._stores.queue.waiting(JobKind.ANALYSE, most + 1)
        return _Sight(count > most, count > most * self._queue.resume_percent / 100, count)

    def _disk(self) -> _Sight:
        """Look at the room on the disk; `number` is how many MB are free."""
        usage = shutil.disk_usage(self._folder)
        percent = 100 * usage.free / (usage.used + usage.free)  # what is kept for root is not there
        low = self._storage.low_disk_percent
        return _Sight(percent < low, percent < low * _MORE_FREE, usage.free // 10**6)
