"""Work that goes on beside a network: the batch before it is committed, and the images after it are decoded.

A network lets other threads compute while it runs, a report is all Python, and pixels are decoded in a process of their
own: on two cores the one hides the others. No more than one batch is behind, so that memory is bounded by two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Behind:
    """One thing at a time, in a thread of its own. What it raises is raised by the next call, to the owner's thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def run(self, act: Callable[[], None]) -> None:
        """Begin something, once what was begun before has ended.

        Raises:
            Exception: what that raised; then nothing is begun.
        """
        self.settle()
        self._thread = threading.Thread(target=self._act, args=(act,), daemon=True, name="behind")
        self._thread.start()

    def settle(self) -> None:
        """Return when nothing is going on; raise what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _act(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 (the owner's thread raises it again)
            self._error = error


def ahead(acts: Sequence[Callable[[], T]]) -> Iterator[T]:
    """Yield what each of some things returns, in their order; the next one goes on while the caller has the last.

    What one raises is raised in its place; those after it are not begun.
    """
    if len(acts) < 2:
        yield from (act() for act in acts)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        waiting = pool.submit(acts[0])
        for following in acts[1:]:
            done = waiting.result()
            waiting = pool.submit(following)
            yield done
        yield waiting.result()
