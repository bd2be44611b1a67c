"""Whose turn it is to write: one writer at a time, among the threads of a process and among processes.

SQLite alone would let writers meet in its busy handler, which sleeps for up to 100 ms and knows no order: who writes
without pause keeps others out for seconds. Here the threads of a process stand in a line, and the first of the line
meets those of other processes at a lock file of two bytes (`radnode.byte_lock`; the kernel frees what a dead process
held):

    byte 0  the anteroom   held by one who has waited for `PATIENCE_SECONDS`
    byte 1  the room       held by the one who writes

As long as nobody is in the anteroom, whoever finds the room empty enters: a process that is warm writes on, which is
faster than waking another one for every commit. Then nobody may overtake. The kernel's own waiting has no deadline, so
who waits looks again and again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

from radnode import baton, byte_lock
from radnode.errors import StoreUnavailable

PATIENCE_SECONDS = 0.002  # how long one may be overtaken
_ANTEROOM, _ROOM = 0, 1
_FIRST_PAUSE, _LAST_PAUSE = 50e-6, 1e-3  # seconds between two looks


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

    def acquire(self, seconds: float) -> None:
        """Wait for the turn, at most `seconds`.

        Raises:
            StoreUnavailable: the turn did not come in time.
        """
        deadline = time.monotonic() + seconds
        self._stand_in_line(seconds)
        try:
            self._enter(deadline)
        except BaseException:
            self._pass_on()
            raise

    def release(self) -> None:
        """Give the turn to who is next, whatever becomes of the lock file."""
        try:
            self._unlock(_ROOM)
        finally:
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
            with baton.waiting:
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

    def _enter(self, deadline: float) -> None:
        """Enter the room: at once, or after others, or by the anteroom."""
        patience = min(deadline, time.monotonic() + PATIENCE_SECONDS)
        if self._look(lambda: not self._occupied(_ANTEROOM) and self._lock(_ROOM), patience):
            return
        if not self._look(lambda: self._lock(_ANTEROOM), deadline):
            raise _too_late()
        try:
            if not self._look(lambda: self._lock(_ROOM), deadline):
                raise _too_late()
        finally:
            self._unlock(_ANTEROOM)

    def _look(self, succeeds: Callable[[], bool], until: float) -> bool:
        """Try again and again, less and less often; False when it is too late."""
        pause = _FIRST_PAUSE
        while not succeeds():
            if time.monotonic() >= until:
                return False
            with baton.waiting:
                time.sleep(pause)
            pause = min(_LAST_PAUSE, pause * 1.2)
        return True

    def _occupied(self, byte: int) -> bool:
        """Whether another process has this byte."""
        try:
            return byte_lock.is_locked(self._file, byte)
        except OSError as error:
            raise _useless(error) from error

    def _lock(self, byte: int) -> bool:
        """Lock one byte; False when another process has it."""
        try:
            return byte_lock.lock(self._file, byte)
        except OSError as error:
            raise _useless(error) from error

    def _unlock(self, byte: int) -> None:
        try:
            byte_lock.unlock(self._file, byte)
        except OSError as error:
            raise _useless(error) from error


def _useless(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"The lock file of the database does not work ({error.strerror}).")


def _closed() -> threading.Lock:
    """Return a lock that somebody else is to open."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _too_late() -> StoreUnavailable:
    return StoreUnavailable("The database cannot be written now: other writers did not finish in time.")
