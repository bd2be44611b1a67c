"""Rounds: step after step until a node stops, with a bell for who has work, and trouble of the node's own survived."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from radnode.errors import RadnodeError
from radnode.jobs.queue import Queue

PAUSE_SECONDS = 1.0  # after trouble of this node's own


class Rounds:
    """What one thread does that leases jobs as `owner`; in trouble it says `stalled` in the log, waits and goes on."""

    def __init__(self, queue: Queue, owner: str, log: Any, stalled: str) -> None:
        self._queue = queue
        self._owner = owner
        self._log = log
        self._stalled = stalled
        self._bell = threading.Event()

    def ring(self) -> None:
        """Say that there may be work."""
        self._bell.set()

    def go(self, step: Callable[[], int], idle_seconds: Callable[[], float], stop: threading.Event) -> None:
        """Take a step as long as there was something to do, else rest that long or until somebody rings."""
        interrupted = False  # whether a step failed midway and its leases are still to be given back
        while not stop.is_set():
            self._bell.clear()
            if stop.is_set():  # who stops the node sets it first and rings then: not between the two
                return
            try:
                if interrupted:
                    self._queue.release(self._owner, counted=False)
                    interrupted = False
                rest = 0.0 if step() else idle_seconds()
            except RadnodeError as error:  # this node's own trouble (database, disk): wait and go on
                self._log.error(self._stalled, error=type(error).__name__, message=str(error))
                interrupted = True
                rest = PAUSE_SECONDS
            self._bell.wait(rest)
