"""Peers that hold connections and say nothing, or next to nothing: a process of its own that keeps their number up.

What the server closes is opened again at once, so that the same number always waits.
"""

from __future__ import annotations

import multiprocessing
import select
import signal
import socket
import ssl
import time
from multiprocessing.synchronize import Event
from typing import Self

from benchmarks.client import Target, tls_context
from radnode.network import wire
from radnode.network.contexts import VERIFICATION, proposed

_DRIP_SECONDS = 1.0
_HELLO = bytes.fromhex("16030107d0010007cc0303")  # a TLS record with 2,000 bytes of a ClientHello to come
_CONNECT_SECONDS = 15.0


class Strangers:
    """A crowd against one server for as long as this context lasts."""

    def __init__(self, target: Target, silent: int, dripping: int) -> None:
        context = multiprocessing.get_context("fork")
        self._complete: Event = context.Event()
        self._ended: Event = context.Event()
        self._opened = context.Value("L", 0)
        crowd = ["silent"] * silent + ["raw", "tls"] * (dripping // 2)
        arguments = (target, crowd, self._complete, self._ended, self._opened)
        self._process = context.Process(target=_run, args=arguments, daemon=True)

    @property
    def opened(self) -> int:
        """How many connections were opened so far, those after a close included."""
        return int(self._opened.value)

    def __enter__(self) -> Self:
        self._process.start()
        if not self._complete.wait(60):
            raise RuntimeError("the strangers could not all connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._process.join(10)
        self._process.kill()


class _Stranger:
    """One connection, and what it says a byte at a time."""

    def __init__(self, target: Target, sort: str, context: ssl.SSLContext) -> None:
        self._said = 0
        self._words = b""
        self.connection: socket.socket = socket.create_connection(("127.0.0.1", target.port), _CONNECT_SECONDS)
        if sort == "raw":
            self._words = _HELLO
        elif sort == "tls":
            self.connection = context.wrap_socket(self.connection, server_hostname="localhost")
            offers = proposed([(VERIFICATION, "1.2.840.10008.1.2")])
            self._words = wire.associate_rq("MODALITY1", target.called or "", offers)
        self.drip()

    def drip(self) -> None:
        """Say the next byte; past its words, zeros.

        Raises:
            OSError: the server closed.
        """
        if self._words:
            self.connection.sendall(self._words[self._said : self._said + 1] or b"\0")
            self._said += 1


def _run(target: Target, crowd: list[str], complete: Event, ended: Event, opened: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    context = tls_context(target.pki)
    present: dict[int, _Stranger] = {}  # by place in the crowd
    while not ended.is_set():
        began = time.monotonic()
        for place, sort in enumerate(crowd):
            stranger = present.get(place)
            try:
                if stranger is None:
                    present[place] = _Stranger(target, sort, context)
                    opened.value += 1  # type: ignore[attr-defined]
                else:
                    stranger.drip()
            except OSError:
                _forget(present, place)
        poll = select.poll()
        places = {one.connection.fileno(): place for place, one in present.items()}
        for descriptor in places:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(0):  # whatever a server says to them is an end: an alert, an abort, a close
            if crowd[places[descriptor]] != "tls" or _is_closed(present[places[descriptor]].connection):
                _forget(present, places[descriptor])
        if len(present) == len(crowd):
            complete.set()
        ended.wait(max(_DRIP_SECONDS - (time.monotonic() - began), 0))


def _is_closed(connection: socket.socket) -> bool:
    """Say whether it has ended; session tickets and the like are read away."""
    connection.settimeout(0)
    try:
        return connection.recv(4096) == b""
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_CONNECT_SECONDS)


def _forget(present: dict[int, _Stranger], place: int) -> None:
    stranger = present.pop(place, None)
    if stranger is not None:
        stranger.connection.close()
