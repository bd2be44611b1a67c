"""How many associations run, in all and of each peer, over all listener processes of a node.

A slot is a locked byte of one file (`radnode.byte_lock`), so that a process that is killed keeps none:

    bytes 0 and on        all associations
    a range of each peer  which begins where its AE title says, so that processes need not agree on a list of peers
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from pathlib import Path

from radnode import byte_lock
from radnode.errors import StoreUnavailable

_RANGE_BITS = 20  # more bytes of a range than associations of a node
_RANGES_BITS = 40  # that two of a thousand peers have the same range: 1 in 10**6 nodes


class Slots:
    """The slots that this process holds, and the right to more of them."""

    def __init__(self, path: Path | None = None) -> None:
        """Open, or make with 0600, the file that the processes share; without one this process is alone.

        Raises:
            StoreUnavailable: it can be neither opened nor made.
        """
        try:
            if path is None:
                self._file = os.memfd_create("associations")
            else:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"The lock file {path} cannot be opened ({error.strerror}).") from error
        weakref.finalize(self, os.close, self._file)
        self._guard = threading.Lock()
        self._held: set[int] = set()

    def take(self, ae_title: str | None, limit: int) -> int | None:
        """Take one of the `limit` slots of a peer, or of all; None when each is taken."""
        first = 0 if ae_title is None else _range_of(ae_title)
        with self._guard:
            for slot in range(first, first + limit):
                if slot not in self._held and byte_lock.lock(self._file, slot):
                    self._held.add(slot)
                    return slot
        return None

    def give_back(self, slot: int) -> None:
        """Let others have a slot."""
        with self._guard:
            self._held.remove(slot)
            byte_lock.unlock(self._file, slot)


def _range_of(ae_title: str) -> int:
    """Return the first byte of a peer's range; the range of all is in front of every other."""
    digest = int.from_bytes(hashlib.sha256(ae_title.encode()).digest()[: _RANGES_BITS // 8])
    return (1 + digest) << _RANGE_BITS
