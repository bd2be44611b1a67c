"""The vault: plaintext in, sealed and durable object out, and back, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from radnode.errors import SealBroken
from radnode.storage.buffers import Buffers
from radnode.storage.extents import ObjectWriter
from radnode.storage.keys import StudyKeys
from radnode.storage.sealing import CHUNK, SEALED_CHUNK, Kind, Sealer, read_header, unseal
from radnode.storage.segments import SegmentStore

KEPT_BUFFERS = 32  # 16 MiB


class SealedObject(NamedTuple):
    """A durable object, and the study key that it is sealed under."""

    object_id: bytes
    key_id: bytes


class Vault:
    """Seals under study keys and keeps the objects in a store. `buffers` hold a chunk of plaintext each."""

    def __init__(self, keys: StudyKeys, objects: SegmentStore) -> None:
        self._keys = keys
        self._objects = objects
        self.buffers = Buffers(CHUNK, KEPT_BUFFERS)

    def create(self, study: str, kind: Kind) -> SealedWriter:
        """Begin an object of a study (a pseudonym).

        Raises:
            StoreUnavailable: the disk is full or failed.
            KeyUnavailable: the key provider is down.
        """
        key = self._keys.of_study(study)
        extent = self._objects.create(SEALED_CHUNK)
        sealer = Sealer(kind=kind, key_id=key.key_id, study_key=key.secret, object_id=extent.object_id)
        return SealedWriter(sealer, extent, key.key_id)

    def put(self, study: str, kind: Kind, plaintext: bytes) -> bytes:
        """Seal a whole object for a study (a pseudonym), make it durable, return its id; raises as `create`."""
        writer = self.create(study, kind)
        view = memoryview(plaintext)
        whole = len(view) - len(view) % CHUNK
        for start in range(0, whole, CHUNK):
            writer.write(view[start : start + CHUNK])
        return writer.commit(view[whole:])

    def open(self, object_id: bytes) -> Iterator[bytes]:
        """Yield the plaintext of an object in chunks, each authenticated; only who takes all has the whole object.

        Raises:
            NotFoundError: no such object.
            KeyUnavailable: its study key was destroyed or the key provider is down.
            SealBroken: it was changed or swapped for another object.
        """
        with self._objects.reading(object_id) as source:
            header = read_header(source)
            if header.object_id != object_id:
                raise SealBroken("A sealed object stands under the name of another; restore it from a backup.")
            yield from unseal(header, source, self._keys.of_id(header.key_id).secret)

    def get(self, object_id: bytes) -> bytes:
        """Return the whole plaintext of an object; raises as `open`."""
        return b"".join(self.open(object_id))

    def discard(self, object_id: bytes) -> None:
        """Remove an object whose commit did not happen."""
        self._objects.delete(object_id)

    def remove(self, object_id: bytes) -> None:
        """Give back the room of an object whose study was purged; StoreUnavailable when the disk failed."""
        self._objects.remove(object_id)

    def forget(self, key_id: bytes) -> None:
        """Keep the key of a study that was purged in memory no longer."""
        self._keys.forget(key_id)

    def leave(self, object_id: bytes) -> None:
        """Leave an object to `sweep`: whether its commit happened cannot be told now."""
        self._objects.leave(object_id)

    def sweep(self, named: Callable[[bytes], Iterable[bytes]]) -> int:
        """Give back what processes that died left behind; arguments, result and errors as `SegmentStore.sweep`."""
        return self._objects.sweep(named)


class SealedWriter:
    """One object being sealed. After an error, or `abort`, nothing of it remains."""

    def __init__(self, sealer: Sealer, extent: ObjectWriter, key_id: bytes) -> None:
        self.key_id = key_id  # of the study key that it is sealed under
        self._sealer = sealer
        self._extent = extent

    def write(self, chunk: memoryview) -> None:
        """Seal and write the next `CHUNK` bytes.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        self._append(chunk, final=False)

    def commit(self, rest: memoryview) -> bytes:
        """Seal and write what remains, fewer than `CHUNK` bytes, make the object durable and return its id.

        Raises:
            StoreUnavailable: the disk is full or failed.
        """
        self._append(rest, final=True)
        self._extent.commit()
        return self._extent.object_id

    def abort(self) -> None:
        """Forget what was written."""
        self._extent.abort()

    def _append(self, chunk: memoryview, *, final: bool) -> None:
        self._extent.advance(self._sealer.seal_into(self._extent.room(SEALED_CHUNK), chunk, final=final))
