"""The audit repository of a node: how its sequencer reaches it, what it is told, and how far it is behind."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from radnode.audit import atna, events, read
from radnode.audit.checkpoint import Checkpoint
from radnode.audit.events import AuditRecord
from radnode.audit.files import end_of_trail
from radnode.audit.forward import Forwarder, read_cursor
from radnode.audit.log import open_sealed
from radnode.audit.syslog import checkpoint_frame, deliver, frame
from radnode.errors import AuditError, ConfigError, NotFoundError
from radnode.jobs.database import transaction
from radnode.jobs.holds import Hold, held, hold, let_go
from radnode.node import ORIGIN, Node
from radnode.observe import logger
from radnode.settings import SyslogSettings
from radnode.storage.keys import read_key


class Backlog(NamedTuple):
    """How many entries the repository has not taken, and for how many seconds the oldest of them has waited."""

    depth: int
    seconds: float


class Repository:
    """Sends the trail of one node to its repository."""

    def __init__(self, node: Node, settings: SyslogSettings) -> None:
        self._node = node
        self._settings = settings
        self._source = atna.Source(node.settings.node.ae_title, socket.gethostname(), f"urn:{ORIGIN.replace('/', ':')}")
        self._key = read_key(node.key_folder / "audit.key") if settings.identity else None
        self._forwarder: Forwarder | None = None
        self._refusing = Hold.REPOSITORY_AWAY in held(node.engine)

    def forwarder(self) -> Forwarder:
        """Make what a thread of the sequencer runs."""
        self._forwarder = Forwarder(self._node.audit_folder, self.send, self._told)
        return self._forwarder

    def look(self) -> None:
        """Refuse images while it is away for too long, where that is wanted, and accept them again afterwards.

        Raises:
            StorageError, AuditError: it cannot be said now; the next look does.
        """
        since = None if self._forwarder is None else self._forwarder.since
        away = 0.0 if since is None else time.monotonic() - since
        refuse = self._settings.on_failure == "refuse" and away > self._settings.refuse_after_seconds
        if refuse == self._refusing:
            return
        detail: dict[str, str | int] = {
            "change": "refusing_images" if refuse else "accepting_images",
            "rule": Hold.REPOSITORY_AWAY.value,
        }
        with transaction(self._node.engine) as tx:
            changed = hold(tx, Hold.REPOSITORY_AWAY, time.time()) if refuse else let_go(tx, Hold.REPOSITORY_AWAY)
            if changed:
                self._node.audit.record(tx, AuditRecord(events.ALERT, self._node.actor(), detail=detail))
        if refuse:
            logger().warning("refusing_images", rule=detail["rule"], message=f"{Hold.REPOSITORY_AWAY.text}.")
        else:
            logger().info("accepting_images", rule=detail["rule"])
        self._refusing = refuse

    def send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Send entries and return when they were taken.

        Raises:
            AuditError: they may not have been.
        """
        deliver(self.connect(), [self._frame(entry) for entry in entries], self._settings.timeout_seconds)

    def put(self, checkpoint: Checkpoint) -> None:
        """Send a signed checkpoint, which makes the repository an anchor. Raises AuditError when it was not taken."""
        note = f"{self._node.signer.sign(checkpoint.text())}\n".encode()
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        sent = checkpoint_frame(note, size=checkpoint.size, timestamp=moment, host=self._source.host)
        deliver(self.connect(), [sent], self._settings.timeout_seconds)

    def connect(self) -> ssl.SSLSocket:
        """Open a connection: this node's certificate, its authority, and the host that was asked for.

        Raises:
            AuditError: the repository is away, or is another.
        """
        from radnode.network.tls import client_context, matches_host  # noqa: PLC0415 (needed where there is one)

        host, port = self._settings.host, self._settings.port
        try:
            context = client_context(self._node.settings)
            raw = socket.create_connection((host, port), self._settings.timeout_seconds)
            try:
                connection = context.wrap_socket(raw, server_hostname=host)
            except BaseException:
                raw.close()
                raise
        except (OSError, ConfigError) as error:
            why = str(error) if isinstance(error, ConfigError) else type(error).__name__
            raise AuditError(f"The audit repository {host}:{port} cannot be reached ({why}).") from None
        if not matches_host(dict(connection.getpeercert() or {}), host):
            connection.close()
            raise AuditError(f"The audit repository {host}:{port} has the certificate of another host.")
        return connection

    def _frame(self, entry: Mapping[str, Any]) -> bytes:
        identity = None if self._key is None else open_sealed(entry, self._key)
        xml = atna.message(entry, self._source, identity)
        about = {"timestamp": entry["timestamp"], "outcome": entry["outcome"], "host": self._source.host}
        return frame(xml, seq=entry["seq"], **about)

    def _told(self, back: bool, sent: int, text: str) -> None:
        if back:
            logger().info("repository_back", count=sent)
        else:
            logger().warning("repository_away", count=sent, message=text)


def backlog(node: Node) -> Backlog:
    """Return how far the repository is behind the trail.

    Raises:
        AuditError: the trail or its cursor cannot be read.
    """
    sent, last = read_cursor(node.audit_folder), end_of_trail(node.audit_folder)[0]
    if last <= sent:
        return Backlog(0, 0.0)
    since = _written(node.audit_folder, sent + 1)
    return Backlog(last - sent, max(0.0, (datetime.now(UTC) - since).total_seconds()))


@lru_cache(maxsize=1)  # it takes reading a segment, and the same entry is asked for as long as the repository is away
def _written(folder: Path, seq: int) -> datetime:
    """Return when an entry was written, or the oldest that is there where it was purged before it was sent."""
    try:
        entry = read.entry(folder, seq)
    except NotFoundError:
        entry = json.loads(min(folder.glob("trail-*")).open("rb").readline())
    return datetime.fromisoformat(entry["timestamp"])
