"""Whose turn it is to write: one writer at a time, among the threads of a process and among processes.

SQLite alone would let writers meet in its busy handler, which sleeps for up to 100 ms and knows no order. Here the
threads of a process stand in a line, and the first of the line asks for the lock of a file (fcntl(2), F_OFD_SETLK),
where the kernel lets processes wait in the order they came and frees what a dead process held.

A thread that asks the kernel to wait can no longer be called back. So where another process has the lock, a second
thread waits for it, the usher, and who sent it can leave at the deadline. It ends when nothing was to do for a while.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import weakref
from collections import deque
from pathlib import Path

from radnode.errors import StoreUnavailable

USHER_SECONDS = 1.0  # how long an usher with nothing to do stays


class WriteLock:
    """The turn to write one database; every process that writes it opens the same file."""

    def __init__(self, path: Path) -> None:
        """Open, or make with 0600, the lock file.

        Raises:
            StoreUnavailable: it can be neither opened nor made.
        """
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"The lock file {path} cannot be opened ({error.strerror}).") from error
        weakref.finalize(self, os.close, self._file)
        self._guard = threading.Lock()
        self._taken = False
        self._line: deque[threading.Lock] = deque()  # one closed lock per waiting thread, opened when it is its turn
        self._usher = False  # whether there is an usher,
        self._sent = False  # whether it was sent to the file and is not back,
        self._wanted = False  # and whether who sent it still waits
        self._send, self._back = _closed(), _closed()

    def acquire(self, seconds: float) -> None:
        """Wait for the turn, at most `seconds`.

        Raises:
            StoreUnavailable: the turn did not come in time.
        """
        deadline = time.monotonic() + seconds
        self._stand_in_line(seconds)
        try:
            # While an usher that nobody awaits is at the file, what it gets must not be taken for this thread's
            if self._sent or not self._ask(fcntl.F_OFD_SETLK):
                self._send_usher(max(0.0, deadline - time.monotonic()))
        except BaseException:
            self._pass_on()
            raise

    def release(self) -> None:
        """Give the turn to who is next."""
        self._free()
        self._pass_on()

    def _stand_in_line(self, seconds: float) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            turn = _closed()
            self._line.append(turn)
        came = False
        try:
            came = turn.acquire(timeout=seconds)
        finally:
            if not came:
                self._leave_line(turn)
        if not came:
            raise _too_late()

    def _leave_line(self, turn: threading.Lock) -> None:
        with self._guard:
            if turn in self._line:
                self._line.remove(turn)
                return
        self._pass_on()  # the turn came at the very moment of leaving

    def _pass_on(self) -> None:
        with self._guard:
            if self._line:
                self._line.popleft().release()
            else:
                self._taken = False

    def _send_usher(self, seconds: float) -> None:
        with self._guard:
            self._wanted = True
            if not self._sent:
                self._sent = True
                self._send.release()
            if not self._usher:
                threading.Thread(target=self._serve, name="write-lock", daemon=True).start()
                self._usher = True
        came = False
        try:
            came = self._back.acquire(timeout=seconds)
        finally:
            if not came:
                with self._guard:
                    self._wanted = False
                    if self._back.acquire(blocking=False):  # it came back at the very moment of leaving
                        self._free()
        if not came:
            raise _too_late()

    def _serve(self) -> None:
        """Be the usher."""
        while True:
            if not self._send.acquire(timeout=USHER_SECONDS):
                with self._guard:
                    if not self._sent:
                        self._usher = False
                        return
                continue
            got = False
            with contextlib.suppress(StoreUnavailable):  # who waits is told so at the deadline
                got = self._ask(fcntl.F_OFD_SETLKW)
            with self._guard:
                self._sent = False
                if got and self._wanted:
                    self._wanted = False
                    self._back.release()
                elif got:
                    self._free()

    def _free(self) -> None:
        self._ask(fcntl.F_OFD_SETLK, fcntl.F_UNLCK)

    def _ask(self, how: int, kind: int = fcntl.F_WRLCK) -> bool:
        """Lock or unlock the whole file; False when another process has it."""
        try:
            fcntl.fcntl(self._file, how, struct.pack("hhqqi", kind, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(f"The lock file of the database does not work ({error.strerror}).") from error
        return True


def _closed() -> threading.Lock:
    """Return a lock that somebody else is to open."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _too_late() -> StoreUnavailable:
    return StoreUnavailable("The database cannot be written now: other writers did not finish in time.")
