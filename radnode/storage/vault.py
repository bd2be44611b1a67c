"""The vault: plaintext in, sealed and durable object out, and back."""

from __future__ import annotations

from radnode.errors import SealBroken
from radnode.storage.keys import StudyKeys
from radnode.storage.objects import FileObjectStore
from radnode.storage.sealing import Kind, read_header, seal, unseal


class Vault:
    """Seals under study keys and keeps the objects in a store."""

    def __init__(self, keys: StudyKeys, objects: FileObjectStore) -> None:
        self._keys = keys
        self._objects = objects

    def put(self, study: str, kind: Kind, plaintext: bytes | memoryview) -> bytes:
        """Seal for a study (a pseudonym), make it durable, return the object id (16 bytes).

        Raises:
            StoreUnavailable: the disk is full or failed.
            KeyUnavailable: the key provider is down.
        """
        key = self._keys.of_study(study)
        object_id = self._objects.new_id()
        sealed = seal(plaintext, kind=kind, key_id=key.key_id, study_key=key.secret, object_id=object_id)
        self._objects.put(object_id, sealed)
        return object_id

    def get(self, object_id: bytes) -> bytes:
        """Return the plaintext of an object.

        Raises:
            NotFoundError: no such object.
            KeyUnavailable: its study key was destroyed or the key provider is down.
            SealBroken: it was changed or swapped for another object.
        """
        sealed = self._objects.get(object_id)
        header = read_header(sealed)
        plaintext = unseal(sealed, self._keys.of_id(header.key_id).secret)
        if header.object_id != object_id:
            raise SealBroken("A sealed object stands under the name of another; restore it from a backup.")
        return plaintext

    def discard(self, object_id: bytes) -> None:
        """Remove an object whose commit did not happen."""
        self._objects.delete(object_id)

    def sweep(self) -> int:
        """Remove what processes that are dead left half-written; return how many files."""
        leftovers = self._objects.leftovers()
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)
