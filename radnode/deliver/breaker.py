"""The circuit breaker of one courier: one destination and kind of job.

closed      deliveries go out
open        several associations in a row came to nothing: nothing is tried until the pause is over
half open   then one delivery is tried; it closes the breaker, or opens it for a longer pause

One line of the log for each change, and a row of the database for `radnode check`. What waits is not touched while the
breaker is open, whatever its number, and all of it is due when it closes.
"""

from __future__ import annotations

import threading
from typing import Any

from radnode.deliver.patience import pause
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import mark_back, mark_out_of_reach, out_of_reach
from radnode.model import JobKind
from radnode.settings import DeliverSettings
from radnode.stores import Stores


class Breaker:
    """Says how much may be tried at one destination now, and learns what came of it.

    A node that is started again knows what was out of reach, and tries it at once.
    """

    def __init__(self, destination: str, kind: JobKind, stores: Stores, settings: DeliverSettings, log: Any) -> None:
        self._destination = destination
        self._kind = kind
        self._stores = stores
        self._settings = settings
        self._log = log
        self._guard = threading.Lock()
        with reading(stores.engine) as tx:
            self._since = found.since if (found := out_of_reach(tx, kind).get(destination)) else None
        self._failures = 0 if self._since is None else settings.breaker_failures
        self._until = 0.0  # epoch seconds: nothing is tried before
        self._probing = False

    def admit(self, limit: int) -> int:
        """Return how many deliveries the caller may try now: `limit`, one as a probe, or none.

        Who is let in says afterwards what came of it: `worked`, `failed` or `abstained`.
        """
        with self._guard:
            if not self._failures:
                return limit
            if self._probing or self._remaining():
                return 0
            self._probing = True
            return 1

    def pause(self) -> float:
        """Return for how many seconds nothing will be let in; 0.0 where nobody knows."""
        with self._guard:
            return self._remaining() if self._failures else 0.0

    def abstained(self) -> None:
        """Say that there was nothing to try, or that trouble of this node's own prevented it."""
        with self._guard:
            self._probing = False

    def worked(self) -> None:
        """Say that the destination took or judged something."""
        with self._guard:
            self._probing = False
            self._failures = 0
            since = self._since
        if since is not None:
            now = self._stores.clock()
            with transaction(self._stores.engine) as tx:
                mark_back(tx, self._destination, self._kind, now)
            with self._guard:
                self._since = None  # not before: where the database failed, it is said after the next delivery
            self._log.info("destination_back", seconds=round(now - since, 1))

    def failed(self, error: Exception) -> float:
        """Say that an association came to nothing; return for how many seconds nothing will be tried."""
        with self._guard:
            self._probing = False
            self._failures += 1
            seconds = pause(self._settings, self._failures, self._settings.probe_seconds)
            now = self._stores.clock()
            self._until = now + seconds
            is_open = self._failures >= self._settings.breaker_failures
            opens = is_open and self._since is None
            if opens:
                self._since = now
            since = self._since or now
        if is_open:
            with transaction(self._stores.engine) as tx:
                mark_out_of_reach(tx, self._destination, self._kind, since, str(error))
        if opens:
            self._log.warning(
                "destination_out_of_reach", count=self._failures, error=type(error).__name__, message=str(error)
            )
        return seconds

    def _remaining(self) -> float:
        """Return how many seconds of the pause are left; none where the clock was set back beyond its beginning."""
        left = self._until - self._stores.clock()
        return left if 0.0 < left <= self._settings.probe_seconds else 0.0
