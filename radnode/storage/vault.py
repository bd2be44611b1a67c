"""The vault: plaintext in, sealed and durable object out, and back, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator

from radnode.errors import SealBroken
from radnode.storage.buffers import Buffers
from radnode.storage.keys import StudyKeys
from radnode.storage.objects import FileObjectStore, ObjectWriter
from radnode.storage.sealing import CHUNK, SEALED_CHUNK, Kind, Sealer, read_header, unseal

KEPT_BUFFERS = 32  # 16 MiB


class Vault:
    """Seals under study keys and keeps the objects in a store. `buffers` hold a chunk each, plain or sealed."""

    def __init__(self, keys: StudyKeys, objects: FileObjectStore) -> None:
        self._keys = keys
        self._objects = objects
        self.buffers = Buffers(SEALED_CHUNK, KEPT_BUFFERS)

    def create(self, study: str, kind: Kind) -> SealedWriter:
        """Begin an object of a study (a pseudonym).

        Raises:
            StoreUnavailable: the disk is full or failed.
            KeyUnavailable: the key provider is down.
        """
        key = self._keys.of_study(study)
        object_id = self._objects.new_id()
        sealer = Sealer(kind=kind, key_id=key.key_id, study_key=key.secret, object_id=object_id)
        return SealedWriter(object_id, sealer, self._objects.create(object_id), self.buffers)

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

    def sweep(self) -> int:
        """Remove what processes that are dead left half-written; return how many files."""
        leftovers = self._objects.leftovers()
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)


class SealedWriter:
    """One object being sealed. After an error, or `abort`, nothing of it remains."""

    def __init__(self, object_id: bytes, sealer: Sealer, file: ObjectWriter, buffers: Buffers) -> None:
        self._object_id = object_id
        self._sealer = sealer
        self._file = file
        self._buffers = buffers

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
        self._file.commit()
        return self._object_id

    def abort(self) -> None:
        """Remove what was written."""
        self._file.abort()

    def _append(self, chunk: memoryview, *, final: bool) -> None:
        room = self._buffers.take()
        try:
            self._file.write(room[: self._sealer.seal_into(room, chunk, final=final)])
        finally:
            self._buffers.give(room)
