"""UIDs of results: the same input under the same model always gets the same UID.

A UID is derived, never drawn: a re-run after a crash makes the same instance again, and the receiving PACS
sees no twin. Every UID stands under 2.25 (PS3.5 section B.2) with an integer of 128 bits that carries the
version and variant bits of a UUID.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from radnode.report.codes import ascii_text

if TYPE_CHECKING:
    from radnode.model import Analysis, ModelIdentity

_DOMAIN = b"radnode/uid/1"


def derive_uid(*parts: str) -> str:
    """A UID under 2.25 (at most 44 characters) that depends on every part and on where one part ends.

    Each part is hashed behind its length in bytes, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(_DOMAIN)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    # Version 8 of RFC 9562: a UUID whose bits its maker defines.
    bits = int.from_bytes(digest.digest()[:16], "big")
    bits = bits & ~(0xF << 76) | 0x8 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return f"2.25.{uuid.UUID(int=bits).int}"


def series_uid(StudyInstanceUID: str, digest: str) -> str:
    """The series that holds every result of one model (`digest`) in one study."""
    return derive_uid("series", StudyInstanceUID, digest)


def document_uid(SOPInstanceUIDs: Sequence[str], digest: str, role: str) -> str:
    """The instance that plays `role` ("report", ...) among the results of one model on these source instances."""
    return derive_uid("instance", digest, role, *SOPInstanceUIDs)


def report_role(analysis: Analysis) -> str:
    """The role of a report: an analysis that failed and is repeated with success makes a new document.

    Without the reason in it, the second report would reach the PACS under the UID of the first with other
    content, and be dropped as a duplicate.
    """
    return "report" if analysis.reason is None else f"report without result: {analysis.reason}"


def tracking_identifier(model: ModelIdentity, index: int) -> str:
    """What stands beside that UID for a reader; index 0 is the whole image, findings count from 1."""
    what = f"finding {index}" if index else "image"
    return f"{ascii_text(model.name)} {ascii_text(model.version)} {what}"


def tracking_uid(SOPInstanceUIDs: Sequence[str], digest: str, index: int) -> str:
    """The tracking UID of one measurement group; index 0 is the whole image, findings count from 1."""
    return derive_uid("tracking", digest, str(index), *SOPInstanceUIDs)
