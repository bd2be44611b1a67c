"""Forwarding the trail: every entry once and in order to a repository, however long it is away.

The trail is the spool, and a cursor beside it (`syslog.cursor`) says up to which entry the repository has taken it. The
cursor moves once a batch was taken; what was under way when either side died goes again, with the same numbers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from radnode.audit.files import FILE_MODE
from radnode.audit.tail import Tail
from radnode.durable import sync_folder
from radnode.errors import AuditError

CURSOR = "syslog.cursor"
BATCH = 500
LOOK_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0


def read_cursor(folder: Path) -> int:
    """Return the number of the last entry that was taken; 0 when none was. Raises AuditError when it is damaged."""
    try:
        return int((folder / CURSOR).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError):
        raise AuditError(f"The cursor {folder / CURSOR} cannot be read; write the last entry sent into it.") from None


class Forwarder:
    """Sends the trail in `folder` on; one thread runs it, and only in the process that holds the trail.

    `send` gets parsed entries in order and returns when they were taken; it raises AuditError when they may not have
    been. `told` is called with True when a repository that was away is back, and with False when it is away.
    """

    def __init__(
        self,
        folder: Path,
        send: Callable[[Sequence[dict[str, Any]]], None],
        told: Callable[[bool, int, str], None],
    ) -> None:
        self._folder = folder
        self._send = send
        self._told = told
        self._pause = 0.0
        self._tail = Tail(folder, read_cursor(folder))
        self.since: float | None = None  # when the repository went away (monotonic)

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set, and then what is left once more, if the repository takes it."""
        while not stop.wait(self._pause or LOOK_SECONDS):
            self.step()
        if not self._pause:
            while self.step():
                pass

    def step(self) -> int:
        """Send the next batch; return how many entries it had: 0 when there is none, or it was not taken."""
        try:
            entries = self._tail.read(BATCH)
            if entries:
                self._send(entries)
                self._move(int(entries[-1]["seq"]))
                self._tail.done(entries)
        except AuditError as error:
            if self.since is None:
                self.since = time.monotonic()
                self._told(False, self._tail.seq, str(error))
            self._pause = min(MAX_PAUSE_SECONDS, max(LOOK_SECONDS, 2 * self._pause))
            return 0
        self._pause = 0.0
        if entries and self.since is not None:
            self.since = None
            self._told(True, self._tail.seq, "")
        return len(entries)

    def _move(self, sent: int) -> None:
        """Move the cursor, durably. Raises AuditError."""
        temporary = self._folder / f"{CURSOR}.new"
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
            with os.fdopen(handle, "w") as file:
                file.write(f"{sent}\n")
                file.flush()
                os.fsync(handle)
            temporary.replace(self._folder / CURSOR)
            sync_folder(self._folder)
        except OSError as error:
            raise AuditError(f"The cursor of the trail could not be written: {error.strerror}.") from None
