"""What the sequencer does besides sequencing: purge the trail past its retention, once a day."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from radnode.audit import events, retention
from radnode.audit.checkpoint import Signer
from radnode.node import Node
from radnode.observe import logger

PURGE_SECONDS = 86_400.0


class Keeper:
    """Keeps the trail of one node; only the process that holds the trail's lock may have one."""

    def __init__(self, node: Node, signer: Signer) -> None:
        self._node = node
        self._signer = signer
        self._next_purge = 0.0

    def look(self) -> None:
        """Do what it is time for.

        Raises:
            AuditError, StorageError: the trail is broken or cannot be changed now.
        """
        if time.monotonic() >= self._next_purge:
            self._next_purge = time.monotonic() + PURGE_SECONDS
            self.purge(datetime.now(UTC))

    def purge(self, now: datetime) -> int:
        """Purge what is past `audit.retention_days`; return how many entries."""
        days, folder = self._node.settings.audit.retention_days, self._node.audit_folder
        if not days:
            return 0
        before = retention.read_stub(folder, self._signer.verifier).size
        stub = retention.due(folder, self._signer.verifier, now - timedelta(days=days))
        if stub is None:
            return 0
        count = stub.size - before
        self._node.record(events.TRAIL_PURGED, self._node.actor(), first=before + 1, last=stub.size, count=count)
        retention.purge(self._node.engine, folder, self._signer, stub)
        logger().info("trail_purged", count=count)
        return count
