"""One data set on its way in: identified, sealed and written while it arrives.

The peer's bytes land in a buffer that is one chunk of the sealed format, behind preamble and file meta information in
the first; when it is full it is read for the identity, sealed into a second buffer and written. Nothing is copied in
between, and no more than a few chunks of any object are in memory, however large it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from radnode.attributes import Attributes
from radnode.errors import ContextMismatch, IdentityMismatch, ObjectTooLarge, RadnodeError
from radnode.failpoints import reach
from radnode.identify import NO_ATTRIBUTES, Identifier, Identity, check_uid
from radnode.model import StoreRequest
from radnode.part10 import file_header
from radnode.storage.sealing import CHUNK, Kind
from radnode.storage.vault import SealedObject, SealedWriter, Vault

# What waits in memory for the StudyInstanceUID, under whose key it is sealed. Few elements have a lower tag, so that it
# nearly always stands in the first chunk; and 20 peers that hold it back on purpose take 160 MiB and no more.
MAX_WAITING = 8 << 20

T = TypeVar("T")


class InstanceReception(Generic[T]):
    """The `radnode.model.Reception` of one C-STORE.

    Args:
        request: the command.
        vault: where the object goes.
        max_bytes: the limit on the data set, as sent and inflated.
        name_study: gives the pseudonym of a study.
        keep: commits what is durable, given its identity, the object and its size in bytes; `finish` returns what it
            does.
        attributes: what the identity is to say beside who and what it is.
    """

    def __init__(
        self,
        request: StoreRequest,
        vault: Vault,
        max_bytes: int,
        name_study: Callable[[str], str],
        keep: Callable[[Identity, SealedObject, int], T],
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> None:
        self._request = request
        self._vault = vault
        self._max_bytes = max_bytes
        self._name_study = name_study
        self._keep = keep
        self._identifier = Identifier(request.transfer_syntax_uid, max_bytes, attributes)
        self._size = 0  # bytes of the data set so far
        self._waiting: list[memoryview] = []  # full chunks not yet written
        self._chunk: memoryview | None = None  # the one that is being filled,
        self._filled = 0  # up to here,
        self._unread = 0  # and not yet read for the identity from here on
        self._writer: SealedWriter | None = None
        self._error: RadnodeError | None = None
        try:
            self._check_command()
        except RadnodeError as error:
            self._error = error

    def room(self) -> memoryview:
        """Return memory for the bytes that come next; at least one byte, valid until `advance`."""
        return self._current()[self._filled : CHUNK]

    def advance(self, count: int) -> None:
        """Say that `count` bytes of the data set were written to the start of `room()`."""
        if self._error is not None:
            return  # what comes now lands in the same place and is dropped
        self._size += count
        self._filled += count
        reach("data-arrives")
        try:
            if self._size > self._max_bytes:
                raise ObjectTooLarge(f"The object has more than {self._max_bytes} bytes (node.max_object_bytes).")
            if self._filled == CHUNK:
                self._full()
        except RadnodeError as error:
            self._error = error
            self._forget()

    def finish(self) -> T:
        """Keep the instance, of which everything came, and return what `keep` returns.

        Raises:
            InputError: these bytes will never be kept; its `status` says why.
            StorageError: this node cannot keep them now.
            AuditError: the audit entry cannot be written, so the instance was not kept.
        """
        try:
            if self._error is not None:
                raise self._error
            rest = self._current()[: self._filled]
            self._identifier.feed(rest[self._unread :])
            identity = self._identifier.finish()
            named = (self._request.sop_class_uid, self._request.sop_instance_uid)
            if (identity.SOPClassUID, identity.SOPInstanceUID) != named:
                raise IdentityMismatch("SOP class or instance UID of the data set are not those of the command.")
            reach("image-identified")
            writer = self._write(identity.StudyInstanceUID)
            sealed = SealedObject(writer.commit(rest), writer.key_id)
            self._writer = None
            reach("object-durable")
        finally:
            self._forget()
        return self._keep(identity, sealed, self._size)

    def abandon(self) -> None:
        """Forget an instance of which not everything came; nothing of it remains."""
        self._forget()

    def _check_command(self) -> None:
        if self._request.sop_class_uid != self._request.context_sop_class_uid:
            raise ContextMismatch("The SOP class of the command is not that of its presentation context.")
        check_uid(self._request.sop_instance_uid)

    def _current(self) -> memoryview:
        """Return the chunk that is being filled."""
        if self._chunk is None:
            self._chunk = self._vault.buffers.take()
            if not self._size and self._error is None:
                header = file_header(self._request)
                self._chunk[: len(header)] = header
                self._filled = self._unread = len(header)
        return self._chunk

    def _full(self) -> None:
        """Read, seal and write a chunk, or let it wait until its study is known."""
        chunk = self._current()
        self._identifier.feed(chunk[self._unread : CHUNK])
        self._waiting.append(chunk)
        self._chunk, self._filled, self._unread = None, 0, 0
        study = self._identifier.StudyInstanceUID
        if study is not None:
            self._write(study)
        elif len(self._waiting) * CHUNK >= MAX_WAITING:
            raise ObjectTooLarge(f"The Study Instance UID does not stand in the first {MAX_WAITING >> 20} MiB.")

    def _write(self, study: str) -> SealedWriter:
        """Seal and write the chunks that wait; return what writes those that follow."""
        if self._writer is None:
            self._writer = self._vault.create(self._name_study(study), Kind.INSTANCE)
        while self._waiting:
            self._writer.write(self._waiting[0][:CHUNK])
            self._vault.buffers.give(self._waiting.pop(0))
        return self._writer

    def _forget(self) -> None:
        """Give every buffer back and remove what was written of an object that is not durable."""
        self._filled = self._unread = 0
        for chunk in (self._chunk, *self._waiting):
            if chunk is not None:
                self._vault.buffers.give(chunk)
        self._chunk = None
        self._waiting.clear()
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
