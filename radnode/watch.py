"""Watching the trail as it grows: what is out of the ordinary becomes one alert of it, and one line of the log."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from radnode.audit import events
from radnode.audit.detection import Detector, Suspicion
from radnode.audit.events import AuditRecord
from radnode.audit.states import due
from radnode.audit.tail import Tail
from radnode.errors import ConfigError
from radnode.jobs.database import transaction
from radnode.node import Node
from radnode.observe import logger

BATCH = 1000
DAY_SECONDS = 86_400.0


class Watch:
    """Looks at the entries behind number `seq` as they come, and at this node's certificates once a day."""

    def __init__(self, node: Node, seq: int) -> None:
        self._node = node
        self._tail = Tail(node.audit_folder, seq)
        self._detector = Detector(node.settings.detection)
        self._next_certificates = 0.0

    def look(self) -> None:
        """Look at what came.

        Raises:
            AuditError, StorageError: the trail is broken, or an alert cannot be written now.
        """
        while entries := self._tail.read(BATCH):
            self._tail.done(entries)
            for entry in entries:
                for suspicion in self._detector.see(entry):
                    self._tell(suspicion)
        if time.monotonic() >= self._next_certificates:
            self._next_certificates = time.monotonic() + DAY_SECONDS
            self._certificates()

    def _certificates(self) -> None:
        """Tell of a certificate of this node, or of its authority, that ends soon; once a day, over restarts too."""
        soon = self._node.settings.detection.certificate_days
        if not soon:
            return
        from radnode.network.tls import certificate_expiry  # noqa: PLC0415 (no other part of TLS is needed here)

        for name in ("certificate", "ca"):
            try:
                end = certificate_expiry(self._node.settings.path(getattr(self._node.settings.tls, name)))
            except ConfigError:  # said by who uses it
                continue
            days = (end - datetime.now(UTC)).days
            if days < soon:
                ends = Suspicion("certificate_ends", self._node.actor(), max(days, 0))
                self._tell(ends, f"certificate_ends tls.{name}", setting=f"tls.{name}")

    def _tell(self, suspicion: Suspicion, daily: str | None = None, **detail: str | int) -> None:
        """Tell of it; what has a name in `daily` not again on the same day."""
        told: dict[str, str | int] = {"rule": suspicion.rule, "count": suspicion.count, **detail}
        with transaction(self._node.engine) as tx:
            if daily is not None and not due(tx, daily, self._node.stores.clock(), DAY_SECONDS):
                return
            self._node.audit.record(tx, AuditRecord(events.ALERT, suspicion.actor, detail=told))
        about = {"ae": suspicion.actor.ae, "address": suspicion.actor.address}
        logger().warning("suspicious", rule=suspicion.rule, count=suspicion.count, **about)
