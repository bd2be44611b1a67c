"""What a listener does not keep is accounted for too.

An object that is refused for what it is gets an entry of its own. Trouble of this node (disk, database, keys) refuses
every object while it lasts and may keep entries from being written too: it is counted, and told of by one alert as soon
as that can be written, again after `PAUSE_SECONDS` where it goes on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from radnode.audit import events
from radnode.audit.events import Actor, AuditOutcome, AuditRecord
from radnode.audit.states import due
from radnode.errors import ContextMismatch, DuplicateInstance, NodeFull, RadnodeError, UnknownOperation
from radnode.jobs.database import transaction
from radnode.model import PeerIdentity
from radnode.observe import describe
from radnode.stores import Stores

PAUSE_SECONDS = 300.0
RETRY_SECONDS = 10.0  # after an alert that was not written


class Refusals:
    """Audits the objects that one listener does not keep; shared by its threads. Nothing here raises."""

    def __init__(self, stores: Stores, actor: Actor, log: Any) -> None:
        self._stores = stores
        self._actor = actor
        self._log = log
        self._guard = threading.Lock()
        self._troubles: Counter[str] = Counter()
        self._next = 0.0

    def declined(self, peer: PeerIdentity, SOPInstanceUID: str | None, error: RadnodeError) -> None:
        """Account for one request that was not served; objects that intake accounts for itself are left out."""
        if isinstance(error, DuplicateInstance | NodeFull):  # image_received with action U; refusing_images
            return
        if error.retry:
            self.failed(type(error).__name__)
            return
        actor = Actor.of_peer(peer)
        detail: dict[str, str | int] = {"status": f"{error.status:04X}", "reason": type(error).__name__}
        if SOPInstanceUID is None and isinstance(error, UnknownOperation | ContextMismatch):  # not about an object
            self._record(AuditRecord(events.ALERT, actor, detail={**detail, "rule": "request_not_served"}))
            return
        instance = None if SOPInstanceUID is None else self._stores.pseudonyms.instance(SOPInstanceUID)
        self._record(AuditRecord(events.IMAGE_REFUSED, actor, instance=instance, detail=detail))

    def failed(self, name: str) -> None:
        """Count an object that trouble of this node kept out; `name` is the class of the error."""
        with self._guard:
            self._troubles[name] += 1

    def look(self) -> None:
        """Tell of the trouble that was counted, where it is time to."""
        if time.monotonic() < self._next:
            return
        with self._guard:
            troubles, self._troubles = self._troubles, Counter()
        if not troubles:
            return
        detail: dict[str, str | int] = {
            "rule": "images_not_kept",
            "count": troubles.total(),
            "reason": ", ".join(sorted(troubles)),
        }
        record = AuditRecord(events.ALERT, self._actor, outcome=AuditOutcome.SERIOUS, detail=detail)
        if not self._record(record, once=True):
            self._next = time.monotonic() + RETRY_SECONDS
            with self._guard:
                self._troubles.update(troubles)

    def _record(self, record: AuditRecord, *, once: bool = False) -> bool:
        """Write an entry, `once` by all listeners in `PAUSE_SECONDS`; False when it was not written."""
        try:
            with transaction(self._stores.engine) as tx:
                if once and not due(tx, "images_not_kept", self._stores.clock(), PAUSE_SECONDS):
                    return False
                self._stores.audit.record(tx, record)
        except RadnodeError as error:
            self._log.error("audit_failed", **describe(error))
            return False
        return True
