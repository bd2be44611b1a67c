"""A deadline that the kernel keeps: a process that hangs is ended, though it has no memory left to do so itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM unless the block ends in time; one within another keeps the nearer of the two.

    Python's own timers are threads. Where memory has run out a thread may not start, and `Thread.start` then waits for
    it without end.
    """
    began = time.monotonic()
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    if 0.0 < outer < seconds:
        signal.setitimer(signal.ITIMER_REAL, outer)
    try:
        yield
    finally:
        left = max(0.001, outer - (time.monotonic() - began)) if outer else 0.0
        signal.setitimer(signal.ITIMER_REAL, left)
