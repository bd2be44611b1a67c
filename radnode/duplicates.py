"""Whether two sealed objects hold the same SOP instance, byte for byte.

Compared are transfer syntax and data set. The File Meta Information is ours and names the peer that sent the object:
the same image from another peer is the same image.
"""

from __future__ import annotations

from collections.abc import Iterator

from radnode.errors import NotFoundError, StoreUnavailable
from radnode.part10 import read_file_meta
from radnode.storage.vault import Vault


def same_instance(vault: Vault, first: bytes, second: bytes) -> bool:
    """Compare two objects (ids) chunk by chunk, both opened and authenticated.

    Raises:
        StorageError: one of them is missing, damaged, or its key is; then nobody knows.
    """
    one, other = _DataSet(vault, first), _DataSet(vault, second)
    if one.transfer_syntax_uid != other.transfer_syntax_uid:
        return False
    while True:
        count = min(one.available(), other.available())
        if not count:
            return not one.available() and not other.available()
        if one.take(count) != other.take(count):
            return False


class _DataSet:
    """The data set of one object, in pieces of any length."""

    def __init__(self, vault: Vault, object_id: bytes) -> None:
        self._chunks = _chunks(vault, object_id)
        start = next(self._chunks)
        meta = read_file_meta(start)
        self.transfer_syntax_uid = meta.transfer_syntax_uid
        self._piece = memoryview(start)[meta.offset :]

    def available(self) -> int:
        """Return how many bytes can be taken now; 0 only at the end."""
        while not self._piece:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._piece = memoryview(chunk)
        return len(self._piece)

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes, which are available."""
        piece, self._piece = self._piece[:count], self._piece[count:]
        return piece


def _chunks(vault: Vault, object_id: bytes) -> Iterator[bytes]:
    try:
        yield from vault.open(object_id)
    except NotFoundError as error:
        raise StoreUnavailable("A kept instance is not in the object store; restore it from a backup.") from error
