"""An append-only Merkle tree that keeps only its right edge (RFC 6962 section 2.1).

The tree over n leaves is held as the roots of its complete subtrees, one per bit of n, so that appending
costs two hashes on average and memory grows with log2(n).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()  # RFC 6962 section 2.1: the hash of an empty list


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf (32 bytes): SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node (32 bytes): SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """The Merkle tree over everything appended so far; `size` is the number of leaves.

    One that goes on where another ended is made of its size and the roots of its complete subtrees, largest first.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots (32 bytes) of the complete subtrees, largest first, one for each bit of `size`."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Append one leaf, given as its leaf hash."""
        full = self.size
        while full & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            full >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the Merkle Tree Hash (32 bytes) of all leaves."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root
