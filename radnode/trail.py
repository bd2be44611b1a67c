"""What the sequencer does besides sequencing: watch the trail, anchor checkpoints, purge what is past its retention."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from radnode.audit import events, retention
from radnode.audit.anchors import SYSLOG, Anchor, anchor_of
from radnode.audit.checkpoint import Checkpoint
from radnode.audit.forward import read_cursor
from radnode.audit.sequencer import Sequencer
from radnode.errors import AuditError, RadnodeError
from radnode.node import Node
from radnode.observe import describe, logger
from radnode.repository import Repository
from radnode.watch import Watch

PURGE_SECONDS = 86_400.0
_Puts = Callable[[Checkpoint], None]


class Keeper:
    """Keeps the trail of one node; only the process that holds the trail's lock may have one."""

    def __init__(self, node: Node, trail: Sequencer, repository: Repository | None = None) -> None:
        self._repository = repository
        self._watch = Watch(node, trail.size)
        self._node = node
        self._trail = trail
        self._anchors: dict[str, _Puts] = {anchor.name: anchor.put for anchor in anchors_of(node)}
        if repository is not None and SYSLOG in node.settings.audit.anchor:
            self._anchors[SYSLOG] = repository.put
        self._put: dict[str, int] = {}
        self._away: set[str] = set()
        self._trouble = ""  # what the last look met, as it was said
        self._next_purge = 0.0

    def look(self) -> None:
        """Do what it is time for; trouble with that is said once and waited for: the sequencer goes on."""
        try:
            self._look()
        except RadnodeError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                logger().error("step_failed", **describe(error))
        else:
            self._trouble = ""

    def _look(self) -> None:
        now = time.monotonic()
        if self._repository is not None:
            self._repository.look()
        self._watch.look()
        if now >= self._next_purge:
            self._next_purge = now + PURGE_SECONDS
            self.purge(datetime.now(UTC))

    def keep_anchored(self, stop: threading.Event) -> None:
        """Anchor every `audit.anchor_seconds`, and once more when `stop` is set; in a thread, for anchors may hang."""
        self.anchor()
        while not stop.wait(self._node.settings.audit.anchor_seconds):
            self.anchor()
        self.anchor()

    def anchor(self) -> None:
        """Put the newest checkpoint where it is not yet; an anchor that is away is told of once, and tried again."""
        newest = self._trail.newest
        for name, put in self._anchors.items():
            if newest is None or newest.size == self._put.get(name):
                continue
            try:
                put(newest)
            except AuditError as error:
                if name not in self._away:
                    self._away.add(name)
                    self._tell_away(str(error))
                continue
            self._put[name] = newest.size
            if name in self._away:
                self._away.discard(name)
                logger().info("anchor_back", count=newest.size)

    def _tell_away(self, sentence: str) -> None:
        logger().error("anchor_away", message=sentence)
        try:
            self._node.record(events.ALERT, self._node.actor(), rule="anchor_away", reason=sentence[:500])
        except RadnodeError as error:
            logger().error("audit_failed", **describe(error))

    def purge(self, now: datetime) -> int:
        """Purge what is past `audit.retention_days`; return how many entries."""
        days, folder, signer = self._node.settings.audit.retention_days, self._node.audit_folder, self._node.signer
        if not days:
            return 0
        before = retention.read_stub(folder, signer.verifier).size
        forwarded = self._node.settings.audit.syslog is not None
        keep_from = read_cursor(folder) + 1 if forwarded else None  # what the repository has not taken yet
        stub = retention.due(folder, signer.verifier, now - timedelta(days=days), keep_from)
        if stub is None:
            return 0
        count = stub.size - before
        self._node.record(events.TRAIL_PURGED, self._node.actor(), first=before + 1, last=stub.size, count=count)
        retention.purge(self._node.engine, folder, signer, stub)
        logger().info("trail_purged", count=count)
        return count


def anchors_of(node: Node) -> list[Anchor]:
    """Return the anchors of a node that can be read, that is, all but its audit repository."""
    audit, base = node.settings.audit, node.settings.data_dir
    return [anchor_of(place, base, node.signer, audit.retention_days) for place in audit.anchor if place != SYSLOG]
