"""Work that goes on behind a worker's back: the results of a batch are committed while the next one is in the network.

A network lets other threads compute while it runs, and a report is all Python: on two cores the one hides the other. No
more than one batch is behind, so that memory is bounded by two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


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
