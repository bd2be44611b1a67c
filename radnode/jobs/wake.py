"""Wake-up between processes: one datagram on a Unix socket says "there may be work".

It is only a hint: whoever waits also wakes by the clock, so a lost datagram costs time and never a job.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_numbers = itertools.count(1)
_TICK_NS = 100_000_000  # more than the grain of a folder's time of change


class Bell:
    """Rings every sleeper of a role; shared by the threads of a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        weakref.finalize(self, self._socket.close)
        self._seen: tuple[tuple[int, int], list[str]] = ((0, 0), [])  # the folder's state, and the sockets in it

    def ring(self, role: str) -> None:
        """Wake all processes that sleep as `role`; none listening is no error."""
        with contextlib.suppress(OSError), _opened(self._folder) as folder:  # a hint: nobody there is no error
            for name in self._sockets(folder):
                if name.startswith(f"{role}-"):
                    with contextlib.suppress(OSError):
                        self._send(folder, name)

    def _send(self, folder: int, name: str) -> None:
        try:
            self._socket.sendto(b"\0", _short_name(folder, name))
        except ConnectionRefusedError:  # who slept there was killed
            os.unlink(name, dir_fd=folder)

    def _sockets(self, folder: int) -> list[str]:
        """Return the names of the sockets in the folder, read again whenever the folder was changed."""
        status = os.fstat(folder)
        state = (status.st_ino, status.st_mtime_ns)
        seen, names = self._seen
        if seen != state:
            names = [name for name in os.listdir(folder) if name.endswith(".sock")]
            if time.time_ns() > status.st_mtime_ns + _TICK_NS:  # a change in the same tick would not show
                self._seen = (state, names)
        return names


class Sleeper:
    """Sleeps until somebody rings for its role."""

    def __init__(self, folder: Path, role: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # never a name again: a ring that found the sleeper before this one gone would take this one's socket away
        self._path = folder / f"{role}-{os.getpid()}-{next(_numbers)}.sock"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with _opened(folder) as opened:
            self._socket.bind(_short_name(opened, self._path.name))
        self._path.chmod(0o600)

    def sleep(self, seconds: float) -> bool:
        """Sleep at most `seconds`; True when the bell rang. Rings that piled up count as one."""
        self._socket.settimeout(max(0.001, seconds))
        try:
            self._socket.recv(1)
        except TimeoutError:
            return False
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Sleeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _short_name(folder: int, name: str) -> str:
    """Name a socket through its open folder: a socket address holds 107 bytes, a data folder's path may be longer."""
    return f"/proc/self/fd/{folder}/{name}"
