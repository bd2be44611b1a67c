"""Lateness: who hears of it when deliveries wait for longer than they should. Patience itself has no end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import waiting
from radnode.settings import DeliverSettings
from radnode.stores import Stores

LOOK_SECONDS = 60.0


class Lateness:
    """Looks once a minute for what has waited longer than `deliver.warn_after_seconds`.

    One warning and one alert of the trail a destination, again after the same time if it is still so.
    """

    def __init__(
        self, destinations: Sequence[str], stores: Stores, settings: DeliverSettings, actor: Actor, log: Any
    ) -> None:
        self._said = dict.fromkeys(destinations, float("-inf"))
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
        for destination, said in self._said.items():
            with reading(self._stores.engine) as tx:
                count, oldest = waiting(tx, destination)
            if oldest is None or now - oldest < self._limit or 0 <= now - said < self._limit:
                continue
            detail: dict[str, str | int] = {"destination": destination, "count": count, "rule": "deliveries_late"}
            with transaction(self._stores.engine) as tx:
                self._stores.audit.record(tx, AuditRecord(events.ALERT, self._actor, detail=detail))
            self._log.warning("deliveries_late", destination=destination, count=count, seconds=round(now - oldest))
            self._said[destination] = now
