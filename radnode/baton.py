"""The baton: of the threads of a process that receive images, one computes at a time.

The interpreter lets one thread run at a time, and takes it away at every short wait within a library: four associations
that read TLS records of 16 KB take it from each other thirty times an image, and each time costs two threads a switch.
So a thread that receives holds the baton while it computes and lays it down while it waits for anything that takes
time: network, disk, database, another thread.

    with baton.held:            # a thread that receives
        ...
        with baton.waiting:     # anywhere below; of no effect in threads that hold nothing
            os.fdatasync(...)

It orders, it does not protect: who waits for it longer than `PATIENCE_SECONDS` goes on without. A wait that does not
lay it down costs time and nothing else, so nothing may be kept consistent by it.
"""

from __future__ import annotations

import threading

PATIENCE_SECONDS = 0.02

_baton = threading.Lock()


class _Hand(threading.local):
    """What one thread does with the baton."""

    is_wanted = False
    holds = False
    waits = 0  # how many waits the thread is in, one within another


_hand = _Hand()


def _take() -> None:
    _hand.holds = _baton.acquire(timeout=PATIENCE_SECONDS)


def _lay_down() -> None:
    if _hand.holds:
        _hand.holds = False
        _baton.release()


class _Held:
    """Holds the baton for a block; not to be nested."""

    def __enter__(self) -> None:
        _hand.is_wanted = True
        _take()

    def __exit__(self, *_error: object) -> None:
        _hand.is_wanted = False
        _lay_down()


class _Waiting:
    """Lays the baton down for a block."""

    def __enter__(self) -> None:
        _hand.waits += 1
        _lay_down()

    def __exit__(self, *_error: object) -> None:
        _hand.waits -= 1
        if _hand.is_wanted and not _hand.waits:
            _take()


held = _Held()
waiting = _Waiting()
