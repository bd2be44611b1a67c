"""What the status of a C-STORE response means to the SCU: stored, try again, or never (PS3.4 B.2.3, PS3.7 Annex C).

And which status a request of Storage Commitment gets.
"""

from __future__ import annotations

import enum

from radnode.errors import DuplicateTransaction, InputError, ObjectTooLarge, RadnodeError, StorageError


class Verdict(enum.Enum):
    """What the outbox does with the object."""

    STORED = "stored"
    RETRY = "retry"
    REFUSED = "refused"


SUCCESS = 0x0000  # PS3.7 C.1.1
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.13
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5.4
NO_SUCH_SOP_INSTANCE = 0x0112  # PS3.7 C.5.17
NO_SUCH_EVENT_TYPE = 0x0113  # PS3.7 C.5.15
INVALID_ARGUMENT_VALUE = 0x0115  # PS3.7 C.5.5
INVALID_SOP_INSTANCE = 0x0117  # PS3.7 C.5.9
NO_SUCH_SOP_CLASS = 0x0118  # PS3.7 C.5.18
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.20
NO_SUCH_ACTION_TYPE = 0x0123  # PS3.7 C.5.14
NOT_AUTHORISED = 0x0124  # PS3.7 C.5.22
DUPLICATE_TRANSACTION_UID = 0x0131  # PS3.3 C.14.1.1, a Failure Reason
UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 C.5.24
RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.26

_GENERAL: dict[int, tuple[Verdict, str]] = {
    SUCCESS: (Verdict.STORED, "success"),
    0x0105: (Verdict.REFUSED, "no such attribute"),  # PS3.7 C.5.12
    0x0106: (Verdict.REFUSED, "invalid attribute value"),  # PS3.7 C.5.6
    0x0107: (Verdict.STORED, "attribute list error"),  # PS3.7 C.4.2, a warning
    PROCESSING_FAILURE: (Verdict.RETRY, "processing failure"),
    DUPLICATE_SOP_INSTANCE: (Verdict.REFUSED, "duplicate SOP instance"),
    NO_SUCH_SOP_INSTANCE: (Verdict.REFUSED, "no such SOP instance"),  # PS3.7 C.5.17
    INVALID_ARGUMENT_VALUE: (Verdict.REFUSED, "invalid argument value"),  # PS3.7 C.5.5
    0x0116: (Verdict.STORED, "attribute value out of range"),  # PS3.7 C.4.3, a warning
    INVALID_SOP_INSTANCE: (Verdict.REFUSED, "invalid SOP instance"),
    NO_SUCH_SOP_CLASS: (Verdict.REFUSED, "no such SOP class"),  # PS3.7 C.5.18
    0x0119: (Verdict.REFUSED, "class-instance conflict"),  # PS3.7 C.5.3
    0x0120: (Verdict.REFUSED, "missing attribute"),  # PS3.7 C.5.10
    0x0121: (Verdict.REFUSED, "missing attribute value"),  # PS3.7 C.5.11
    SOP_CLASS_NOT_SUPPORTED: (Verdict.REFUSED, "SOP class not supported"),
    NOT_AUTHORISED: (Verdict.REFUSED, "not authorised"),  # PS3.7 C.5.22
    0x0210: (Verdict.RETRY, "duplicate invocation"),  # PS3.7 C.5.23
    UNRECOGNIZED_OPERATION: (Verdict.REFUSED, "unrecognized operation"),
    0x0212: (Verdict.REFUSED, "mistyped argument"),  # PS3.7 C.5.25
    RESOURCE_LIMITATION: (Verdict.RETRY, "resource limitation"),  # PS3.7 C.5.26
}


def of_commitment(error: RadnodeError) -> int:
    """Return the status of an N-ACTION or N-EVENT-REPORT (PS3.7 sections 10.1.4.1.10 and 10.1.1.1.8) for an error."""
    if isinstance(error, DuplicateTransaction):
        return DUPLICATE_TRANSACTION_UID
    if isinstance(error, StorageError | ObjectTooLarge):
        return RESOURCE_LIMITATION
    return INVALID_ARGUMENT_VALUE if isinstance(error, InputError) else PROCESSING_FAILURE


def classify(status: int) -> tuple[Verdict, str]:
    """Return the verdict on a status and its meaning in the standard's words.

    A failure that neither part knows is tried again: the outbox has patience without end, a lost report nobody mends.
    """
    if status in _GENERAL:
        return _GENERAL[status]
    if status & 0xFF00 == 0xA700:
        return Verdict.RETRY, "refused: out of resources"  # PS3.4 Table B.2-1
    if status & 0xFF00 in (0xA800, 0xA900):
        return Verdict.REFUSED, "data set does not match SOP class"  # PS3.4 Table B.2-1; A8xx before 1998
    if status & 0xF000 == 0xB000:
        return Verdict.STORED, "warning"  # PS3.4 Table B.2-1: coerced, discarded or unlike its SOP class, but stored
    if status & 0xF000 == 0xC000:
        return Verdict.REFUSED, "cannot understand"  # PS3.4 Table B.2-1
    return Verdict.RETRY, "unknown failure"
