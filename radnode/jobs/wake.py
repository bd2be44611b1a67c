"""Wake-up between processes: one datagram on a Unix socket says "there may be work".

It is only a hint: whoever waits also wakes by the clock, so a lost datagram costs time and never a job.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType


class Bell:
    """Rings every sleeper of a role."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ring(self, role: str) -> None:
        """Wake all processes that sleep as `role`; none listening is no error."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for path in self._folder.glob(f"{role}-*.sock"):
                with contextlib.suppress(OSError):  # a hint: nobody there is no error
                    try:
                        with _short_name(path) as name:
                            sender.sendto(b"\0", name)
                    except ConnectionRefusedError:  # who slept there was killed
                        path.unlink()


class Sleeper:
    """Sleeps until somebody rings for its role."""

    def __init__(self, folder: Path, role: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{role}-{os.getpid()}.sock"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with _short_name(self._path) as name:
            self._socket.bind(name)
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
def _short_name(path: Path) -> Iterator[str]:
    """Name a socket through its open folder: a socket address holds 107 bytes, a data folder's path may be longer."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
