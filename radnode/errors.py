"""Every error radnode raises on purpose.

    RadnodeError
    |-- ConfigError              the configuration cannot be used (exit 3)
    |-- RefusedError             the caller may not do this (exit 4)
    |-- NotFoundError            the named result, job, model or entry does not exist
    |-- InputError               a peer sent something that cannot be kept
    |   |-- MalformedDataSet         C000  not a readable data set
    |   |-- IdentityMismatch         A900  data set and command disagree, or a required UID is missing
    |   |-- InvalidUID               0117  a UID that is not a UID
    |   |-- ContextMismatch          0122  SOP class is not that of the presentation context
    |   |-- UnknownOperation         0211  a command field that PS3.7 does not know
    |   |-- DuplicateInstance        0111  a known UID with other bytes
    |   |-- ObjectTooLarge           A700  over a size, depth or count limit
    |   `-- DuplicateTransaction           a Transaction UID that stands for another storage commitment
    |-- StorageError             this node cannot keep it now (retry)
    |   |-- StoreUnavailable         A700  disk full, input/output error, database locked
    |   |-- NodeFull                 A700  the queue or the disk has passed its mark
    |   |-- KeyUnavailable           A700  the key provider does not answer
    |   `-- SealBroken               a sealed object does not open: wrong key or changed bytes
    |-- AuditError               0110  what cannot be audited does not happen (retry)
    |-- StaleLease               a worker tried to finish a job it no longer holds
    |-- PackageError             a model package is missing, changed, unsigned or does not load
    |-- DetectionError           one image could not be analysed; carries a `Reason`
    |-- DecoderUnavailable       the decoding process does not start; no image is to blame (retry)
    `-- DeliveryError            an object did not reach its destination
        |-- PeerMovedOn              who waited for an answer does so no more (retry)
        |-- DestinationUnavailable   try again later (retry)
        `-- DestinationRefused       the destination will never take this object
            `-- DestinationHolds       it holds an object of this UID already (0111)

`str(error)` is one sentence that says what to do and holds no patient data; it is the only text of an
exception that may be printed or logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from radnode.model import Reason


class RadnodeError(Exception):
    """Base of the tree; `retry` says whether the same call may succeed later."""

    retry: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 0xC000  # C-STORE status, PS3.4 Table B.2-1


class ConfigError(RadnodeError):
    """The configuration file, an override or a file it names cannot be used."""

    exit_code = 3


class RefusedError(RadnodeError):
    """The caller is known and may not do what was asked."""

    exit_code = 4


class NotFoundError(RadnodeError):
    """The named result, job, model or audit entry does not exist."""


class InputError(RadnodeError):
    """A peer sent something that cannot be kept; the same bytes will fail again."""


class MalformedDataSet(InputError):
    """The bytes are not a readable data set (junk, truncated, lying lengths, nested too deep)."""

    status = 0xC000  # PS3.4 Table B.2-1 Cannot understand


class IdentityMismatch(InputError):
    """Data set and C-STORE command disagree, or a UID every instance must have is missing."""

    status = 0xA900  # PS3.4 Table B.2-1 Data Set does not match SOP Class


class InvalidUID(InputError):
    """A UID that does not follow PS3.5 section 9.1."""

    status = 0x0117  # PS3.7 Annex C Invalid SOP Instance


class ContextMismatch(InputError):
    """The SOP class of the command is not the abstract syntax of its presentation context."""

    status = 0x0122  # PS3.7 Annex C SOP Class not supported


class UnknownOperation(InputError):
    """A request whose command field is none of PS3.7 Table E.1-1."""

    status = 0x0211  # PS3.7 Annex C Unrecognized operation


class DuplicateInstance(InputError):
    """A SOP Instance UID that is already stored arrived with different bytes."""

    status = 0x0111  # PS3.7 Annex C Duplicate SOP Instance


class ObjectTooLarge(InputError):
    """The object passes a limit on size or element count; nothing was allocated for it."""

    status = 0xA700  # PS3.4 Table B.2-1 Out of Resources


class DuplicateTransaction(InputError):
    """A Transaction UID came again, with other references or after it was answered (N-ACTION status 0131)."""


class StorageError(RadnodeError):
    """This node cannot keep the object now; nothing was promised and the peer may try again."""

    retry = True
    status = 0xA700


class StoreUnavailable(StorageError):
    """The disk is full, an input/output error happened, or the database is locked."""


class NodeFull(StorageError):
    """The queue or the disk has passed its mark: images are refused until there is room again."""


class KeyUnavailable(StorageError):
    """The provider of the key-encryption key does not answer or does not know the key."""


class SealBroken(StorageError):
    """A sealed object does not open: it was changed, cut, or sealed under another key."""

    retry = False


class AuditError(RadnodeError):
    """The audit entry could not be written, so what it describes did not happen."""

    retry = True
    status = 0x0110  # PS3.7 Annex C Processing failure


class StaleLease(RadnodeError):
    """A lease was finished or renewed after it had passed to another worker."""


class PackageError(RadnodeError):
    """A model package is missing, changed, unsigned, signed by an unknown key, or does not load."""


class DetectionError(RadnodeError):
    """One image could not be analysed; `reason` becomes the report's reason, never a "no finding"."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class DecoderUnavailable(RadnodeError):
    """The process that decodes pixels does not start: trouble of this node, never a finding about an image."""

    retry = True


class DeliveryError(RadnodeError):
    """An object did not reach its destination."""


class PeerMovedOn(DeliveryError):
    """A peer that was to be answered on the association on which it asked released it, or went on with other things."""

    retry = True


class DestinationUnavailable(DeliveryError):
    """The destination is down, slow, out of resources or mid-restart; the object stays in the outbox."""

    retry = True


class DestinationRefused(DeliveryError):
    """The destination answered that it will never take this object; it becomes a dead letter."""


class DestinationHolds(DestinationRefused):
    """The destination holds an object of this SOP Instance UID already and keeps that one."""
