"""Memory for chunks on their way through, used again: fresh memory costs a page fault every 4096 bytes."""

from __future__ import annotations


class Buffers:
    """Buffers of one size; at most `keep` of them are held while nobody uses them."""

    def __init__(self, size: int, keep: int) -> None:
        self._size = size
        self._keep = keep
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """Return a buffer that is the caller's until it gives it back; what it holds is of no meaning."""
        try:
            return self._free.pop()  # the one used last: perhaps it is still in the processor's cache
        except IndexError:
            return memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        """Give a buffer back; the caller no longer touches it."""
        if len(self._free) < self._keep:
            self._free.append(buffer)
