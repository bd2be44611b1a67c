"""A PACS in trouble: frozen, killed, slow, refusing, and forgetting what it has stored."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from support.node import NodeProcess
from support.pacs import TroubledOrthanc


class Trouble(threading.Thread):
    """Gives a PACS one trouble after the other until it is told to end; then the PACS is well."""

    def __init__(self, pacs: TroubledOrthanc, node: NodeProcess, seed: int, *, loses: bool) -> None:
        super().__init__(name="trouble", daemon=True)
        self._pacs = pacs
        self._node = node
        self._chance = random.Random(seed)  # noqa: S311 (choices that can be repeated, no secret)
        self._kinds = ["frozen", "killed", "slow", "refusing", *(["losing"] if loses else [])]
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Make trouble about a third of the time."""
        while not self._over.wait(self._chance.uniform(2, 6)):
            kind, seconds = self._chance.choice(self._kinds), self._chance.uniform(0.5, 3)
            self.counts[kind] += 1
            if kind == "losing":
                self._lose()
            elif kind == "slow":
                deadline = time.monotonic() + seconds
                self._pacs.crawl(lambda deadline=deadline: time.monotonic() > deadline)
            else:
                with getattr(self._pacs, kind)():
                    self._over.wait(seconds)

    def _lose(self) -> None:
        """Let the PACS forget something that it has taken and not committed: what it committed is its own to keep."""
        with self._pacs.killed():
            taken = [uid for row in self._node.results() for uid in _taken(row)]
            if taken and self._pacs.lose(self._chance.choice(taken)):
                self.counts["lost an object"] += 1  # else the one that was chosen had been lost before

    def end(self) -> None:
        """Return when the trouble that it is in is over, and the last."""
        self._over.set()
        self.join()


def _taken(result: dict[str, Any]) -> Iterator[str]:
    """Yield what the PACS has of a result and has not committed yet: report and pictures, by SOP Instance UID."""
    for made in ({**result["report"], "delivered": result["delivered"]}, *result["secondary"]):
        if any(item["state"] == "sent" for item in made["delivered"]):
            yield made["SOPInstanceUID"]
