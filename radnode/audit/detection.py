"""Detection: what in the trail is out of the ordinary, each told once in a while and not with every entry.

It sees the entries as they come into the trail, by their own times, and keeps a bounded memory of who did how much.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from radnode.audit.events import Actor
from radnode.settings import DetectionSettings

HOUR = 3600.0  # seconds
MOST_ACTORS = 10_000  # whose doings are remembered, the latest ones
_REFUSED = frozenset({"peer_refused", "image_refused", "access_refused"})
_READ = frozenset({"result_read", "result_exported"})
_PERSONAL = _READ | {"trail_read"}


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is out of the ordinary: which rule, by whom, and how much of it."""

    rule: str
    actor: Actor
    count: int


class Detector:
    """Watches for repeated refusals, unusual volume of a peer or a person, and reads out of hours."""

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings
        self._moments: OrderedDict[tuple[str, str], deque[tuple[float, str]]] = OrderedDict()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def see(self, entry: Mapping[str, Any]) -> Iterator[Suspicion]:
        """Yield what an entry makes suspicious; entries come in their order, once each."""
        name, actor = str(entry["event"]).partition(" ")[2], Actor(**entry["actor"])
        moment = datetime.fromisoformat(entry["timestamp"])
        who, settings = actor.address or actor.certificate or actor.user or actor.ae or "", self._settings
        now = moment.timestamp()
        found: list[tuple[str, int]] = []
        seq = str(entry["seq"])
        if name in _REFUSED and settings.refusals:
            count = self._count("repeated_refusals", who, now, settings.refusals_seconds, seq, settings.refusals)
            if count >= settings.refusals:
                found.append(("repeated_refusals", count))
        if name == "image_received" and entry["action"] == "C" and settings.images_per_hour:
            count = self._count("unusual_volume", who, now, HOUR, seq, settings.images_per_hour + 1)
            if count > settings.images_per_hour:
                found.append(("unusual_volume", count))
        if name in _READ and entry["patient"] and settings.patients_per_hour:
            count = self._count("unusual_reading", who, now, HOUR, entry["patient"], settings.patients_per_hour + 1)
            if count > settings.patients_per_hour:
                found.append(("unusual_reading", count))
        if name in _PERSONAL and actor.ae is None and not settings.is_working(moment.astimezone()):
            found.append(("read_out_of_hours", 1))
        for rule, count in found:
            if self._is_new(rule, who, now):
                yield Suspicion(rule, actor, count)

    def _count(self, rule: str, who: str, now: float, seconds: float, what: str, most: int) -> int:
        """Return how many different things somebody has done in the last `seconds`, this one included, up to `most`."""
        moments = self._moments.setdefault((rule, who), deque())
        self._moments.move_to_end((rule, who))
        if rule == "unusual_reading" and any(known == what for _, known in moments):
            return len(moments)
        moments.append((now, what))
        while len(moments) > most or not now - seconds < moments[0][0] <= now:  # a clock that was set back forgets
            moments.popleft()
        if len(self._moments) > MOST_ACTORS:
            self._moments.popitem(last=False)
        return len(moments)

    def _is_new(self, rule: str, who: str, now: float) -> bool:
        """Whether it is to be told: not again before `quiet_seconds` have passed."""
        told = self._told.get((rule, who))
        if told is not None and 0 <= now - told < self._settings.quiet_seconds:
            return False
        self._told[rule, who] = now
        self._told.move_to_end((rule, who))
        if len(self._told) > MOST_ACTORS:
            self._told.popitem(last=False)
        return True
