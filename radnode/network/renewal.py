"""The certificate files of the listener, read again when they change: renewal and revocation need no restart.

What lets peers in (authority, revocation list) fails closed: while it cannot be used nobody is let in. What only names
this node (certificate and key) does not: the last pair that could be used goes on, so that a pair of which one file
is written already costs no association. Associations that are established stay.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from radnode.errors import ConfigError
from radnode.network.tls import server_context

if TYPE_CHECKING:
    from pathlib import Path

    from radnode.settings import Settings

CHECK_SECONDS = 1.0  # how often, at most, the files are looked at

_State = tuple[int, int, int, int] | None  # mtime and ctime in ns, size, inode; None where there is no file


class ServerContexts:
    """The TLS context of the next connection.

    `told` is called once a change: with None when the files were read, with the error when they cannot be used.

    Raises:
        ConfigError: the files cannot be used at the start.
    """

    def __init__(self, settings: Settings, told: Callable[[ConfigError | None], None]) -> None:
        tls = settings.tls
        self._settings = settings
        self._told = told
        self._own = [settings.path(tls.certificate), settings.path(tls.key)]
        self._trusted = [settings.path(tls.ca), *([settings.path(tls.crl)] if tls.crl else [])]
        self._lock = threading.Lock()
        self._seen = self._look()
        self._used = self._seen
        self._next_look = time.monotonic() + CHECK_SECONDS
        self._closed: ConfigError | None = None
        self._context = server_context(settings)

    def current(self) -> ssl.SSLContext:
        """Return the context for a connection that begins now.

        Raises:
            ConfigError: authority or revocation list cannot be used; nobody is let in.
        """
        with self._lock:
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + CHECK_SECONDS
                seen = self._look()
                if seen != self._seen:
                    self._seen = seen  # before reading, so that a file that changes meanwhile is read again
                    self._told(self._renew())
            if self._closed is not None:
                raise self._closed
            return self._context

    def _renew(self) -> ConfigError | None:
        """Read all files; return why they cannot be used."""
        try:
            self._context = server_context(self._settings)
        except ConfigError as error:
            trusted_as_before = self._seen[len(self._own) :] == self._used[len(self._own) :]
            self._closed = None if trusted_as_before else error
            return error
        self._used = self._seen
        self._closed = None
        return None

    def _look(self) -> list[_State]:
        """Return the state of each file, own ones first."""
        return [_state(path) for path in (*self._own, *self._trusted)]


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
