"""The circuit breaker of one courier: one destination and kind of job.

closed      deliveries go out
open        several associations in a row came to nothing: nothing is tried until the pause is over
half open   then one delivery is tried; it closes the breaker, or opens it for a longer pause

One line of the log for each change, and a row of the database for `radnode check`. What waits is not touched while the
breaker is open, whatever its number, and all of it is due when it closes.
"""

from __future__ import annotations

from typing import Any

from radnode.deliver.patience import pause
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import mark_back, mark_out_of_reach, out_of_reach
from radnode.model import JobKind
from radnode.settings import DeliverSettings
from radnode.stores import Stores


class Breaker:
    """Says how much may be tried at one destination now, and learns what came of it; used by one thread.

    A node that is started again knows what was out of reach, and tries it at once.
    """

    def __init__(self, destination: str, kind: JobKind, stores: Stores, settings: DeliverSettings, log: Any) -> None:
        self._destination = destination
        self._kind = kind
        self._stores = stores
        self._settings = settings
        self._log = log
        with reading(stores.engine) as tx:
            self._since = found.since if (found := out_of_reach(tx, kind).get(destination)) else None
        self._failures = 0 if self._since is None else settings.breaker_failures
        self._until = 0.0  # epoch seconds: nothing is tried before

    def admit(self, limit: int) -> int:
        """Return how many deliveries may be tried now: `limit`, one as a probe, or none.

        Of what was tried and told something about the destination, `worked` or `failed` is said afterwards.
        """
        if not self._failures:
            return limit
        return 0 if self.pause() else 1

    def pause(self) -> float:
        """Return for how many more seconds nothing is tried; 0.0 where the clock was set back beyond its beginning."""
        left = self._until - self._stores.clock()
        return left if self._failures and 0.0 < left <= self._settings.probe_seconds else 0.0

    def worked(self) -> None:
        """Say that the destination took or judged something."""
        self._failures = 0
        if self._since is None:
            return
        now = self._stores.clock()
        with transaction(self._stores.engine) as tx:
            mark_back(tx, self._destination, self._kind, now)
        self._log.info("destination_back", seconds=round(now - self._since, 1))
        self._since = None  # not before: where the database failed, it is said after the next delivery

    def failed(self, error: Exception) -> float:
        """Say that an association came to nothing; return for how many seconds nothing will be tried."""
        self._failures += 1
        seconds = pause(self._settings, self._failures, self._settings.probe_seconds)
        now = self._stores.clock()
        self._until = now + seconds
        if self._failures >= self._settings.breaker_failures:
            since = now if self._since is None else self._since
            name, text = type(error).__name__, str(error)
            with transaction(self._stores.engine) as tx:
                mark_out_of_reach(tx, self._destination, self._kind, since, text)
            if self._since is None:
                self._log.warning("destination_out_of_reach", count=self._failures, error=name, message=text)
            self._since = since
        return seconds
