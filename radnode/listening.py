"""What the listener processes of a node share: its bound ports, and how many connections each of them has.

The ports are bound once, before any process starts, and all accept from the same queue: whoever has fewest connections
takes the next one, and who dies loses none that nobody has taken. Nobody is let in before a process listens.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO

from radnode.errors import ConfigError
from radnode.settings import NodeSettings

_ENTRY = 4  # bytes of one process in the shared memory
_NOT_LISTENING = 2**32 - 1


class Load:
    """How many connections this process has, which the others see."""

    def __init__(self, memory: FileIO | None = None, number: int = 0) -> None:
        """Take the entry `number` of shared memory; without any this process is alone."""
        shared = mmap.mmap(-1, _ENTRY) if memory is None else mmap.mmap(memory.fileno(), 0)
        self._entries = memoryview(shared).cast("I")
        self._number = number
        self._lock = threading.Lock()
        self._count = 0
        self._is_listening = False
        self._tell()

    def add(self, change: int) -> None:
        """Count connections in or out."""
        with self._lock:
            self._count += change
            self._tell()

    def listen(self, *, is_listening: bool) -> None:
        """Say whether this process takes connections at all; at first it does not."""
        with self._lock:
            self._is_listening = is_listening
            self._tell()

    @property
    def is_least(self) -> bool:
        """Whether no process that takes connections has fewer."""
        return self._count <= min(self._entries)

    def _tell(self) -> None:
        self._entries[self._number] = self._count if self._is_listening else _NOT_LISTENING


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The bound sockets, that of TLS first, and the shared memory of the processes' loads."""

    sockets: tuple[socket.socket, ...]
    memory: FileIO

    @classmethod
    def bind(cls, node: NodeSettings, processes: int = 1) -> Endpoints:
        """Bind the ports for that many processes, and listen not yet.

        Raises:
            ConfigError: a port is taken, or the address is none of this machine.
        """
        sockets: list[socket.socket] = []
        for port in (node.port, *([node.plain_port] if node.plain_port else [])):
            try:
                sockets.append(_bound(node.bind_address, port))
            except OSError as error:
                for bound in sockets:
                    bound.close()
                raise unusable(node, port, error) from error
        memory = FileIO(os.memfd_create("listeners"), "r+")
        memory.write(_NOT_LISTENING.to_bytes(_ENTRY) * processes)
        return cls(tuple(sockets), memory)

    @classmethod
    def inherit(cls, descriptors: Sequence[int]) -> Endpoints:
        """Take over the descriptors that the supervisor passed."""
        *sockets, memory = descriptors
        return cls(tuple(socket.socket(fileno=descriptor) for descriptor in sockets), FileIO(memory, "r+"))

    @property
    def descriptors(self) -> list[int]:
        """What `inherit` wants."""
        return [*(bound.fileno() for bound in self.sockets), self.memory.fileno()]

    def close(self) -> None:
        """Close what this process has of them; a second time is no error."""
        for bound in self.sockets:
            bound.close()
        self.memory.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes of its role this one is, from 0 on, of how many, and the ports that they share if any."""

    number: int = 0
    processes: int = 1
    endpoints: Endpoints | None = None


def unusable(node: NodeSettings, port: int, error: OSError) -> ConfigError:
    """Return what to say of a port that cannot be listened on."""
    return ConfigError(
        f"Cannot listen on {node.bind_address} port {port}: {error.strerror}; change node.port or stop what uses it."
    )


def _bound(address: str, port: int) -> socket.socket:
    """Return a socket that is bound, waits for nobody, and listens not yet."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections in TIME-WAIT
        bound.setblocking(False)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
