"""Lateness: who hears of it when deliveries wait for longer than they should. Patience itself has no end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import Unaddressed, waiting
from radnode.settings import DeliverSettings
from radnode.stores import Stores

LOOK_SECONDS = 60.0


class Lateness:
    """Looks once a minute for what has waited longer than `deliver.warn_after_seconds`, or for nobody at all.

    One warning and one alert of the trail a destination, again after the same time if it is still so. `unaddressed`
    says what waits for whom the configuration does not name: that is said at the first look, however short it waits.
    """

    def __init__(
        self,
        destinations: Sequence[str],
        stores: Stores,
        *,
        settings: DeliverSettings,
        actor: Actor,
        log: Any,
        unaddressed: Callable[[], Sequence[Unaddressed]],
    ) -> None:
        self._destinations = destinations
        self._unaddressed = unaddressed
        self._said: dict[tuple[str, str], float] = {}
        self._stores = stores
        self._limit = settings.warn_after_seconds
        self._actor = actor
        self._log = log
        self._next = 0.0

    def look(self) -> None:
        """Look, where it is time to.

        Raises:
            StoreUnavailable: the database cannot be used; the next call tries again.
        """
        now = self._stores.clock()
        if now < self._next <= now + LOOK_SECONDS:  # the second half: unless the clock was set back
            return
        self._next = now + min(LOOK_SECONDS, self._limit)
        for name in self._destinations:
            with reading(self._stores.engine) as tx:
                count, oldest = waiting(tx, name)
            if oldest is not None and now - oldest >= self._limit:
                self._say("deliveries_late", name, count, now, now - oldest)
        for lost in self._unaddressed():
            self._say("destination_unknown", lost.name, lost.count, now, now - lost.oldest, advice=lost.advice)

    def _say(self, event: str, name: str, count: int, now: float, seconds: float, **more: str) -> None:
        """Warn and alert, unless that was done no longer ago than the limit."""
        said = self._said.get((event, name))
        if said is not None and 0 <= now - said < self._limit:
            return
        detail: dict[str, str | int] = {"destination": name, "count": count, "rule": event}
        with transaction(self._stores.engine) as tx:
            self._stores.audit.record(tx, AuditRecord(events.ALERT, self._actor, detail=detail))
        self._log.warning(event, destination=name, count=count, seconds=round(seconds), **more)
        self._said[event, name] = now
