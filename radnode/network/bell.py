"""What wakes an association's thread, which in pynetdicom looks a thousand times a second for something to do."""

from __future__ import annotations

import queue
import threading
from typing import Any

PATIENCE_SECONDS = 0.2  # the idle time and the life of the upper layer are looked at this often


class Bell(threading.Event):
    """Takes the place of the reactor's checkpoint: `wait` lets one round pass each time something was queued."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return once rung, at the latest after PATIENCE_SECONDS."""
        rung = super().wait(PATIENCE_SECONDS if timeout is None else timeout)
        self.clear()
        return rung

    def queue(self) -> queue.Queue[Any]:
        """Return a queue that rings when something is put into it."""
        return _RingingQueue(self)


class _RingingQueue(queue.Queue[Any]):
    def __init__(self, bell: Bell) -> None:
        super().__init__()
        self._bell = bell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put, then ring."""
        super().put(item, block, timeout)
        self._bell.set()
