"""A PACS in trouble: frozen, killed, slow, refusing, and forgetting what it has stored."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from support.pacs import TroubledOrthanc


class Trouble(threading.Thread):
    """Gives a PACS one trouble after the other until it is told to end; then the PACS is well."""

    def __init__(self, pacs: TroubledOrthanc, seed: int, *, loses: bool) -> None:
        super().__init__(name="trouble", daemon=True)
        self._pacs = pacs
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
                self._pacs.lose(self._chance)
            elif kind == "slow":
                deadline = time.monotonic() + seconds
                self._pacs.crawl(lambda deadline=deadline: time.monotonic() > deadline)
            else:
                with getattr(self._pacs, kind)():
                    self._over.wait(seconds)

    def end(self) -> None:
        """Return when the trouble that it is in is over, and the last."""
        self._over.set()
        self.join()
