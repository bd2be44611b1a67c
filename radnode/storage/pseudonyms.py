"""Keyed pseudonyms: how the index, the logs and the trail speak of patients without naming them.

HMAC-SHA256 under the node's pseudonym key, cut to 128 bits, as 32 hex digits. The same identifier gives the same
pseudonym on one node and an unrelated one on another.
"""

from __future__ import annotations

import hmac
import unicodedata

DIGITS = 32


class Pseudonyms:
    """Pseudonyms under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def patient(self, issuer: str, patient_id: str) -> str:
        """Return the pseudonym of (Issuer of Patient ID, Patient ID); spaces around either do not count."""
        return self._of("patient", _normal(issuer), _normal(patient_id))

    def study(self, StudyInstanceUID: str) -> str:
        """Return the pseudonym of a study."""
        return self._of("study", StudyInstanceUID)

    def series(self, SeriesInstanceUID: str) -> str:
        """Return the pseudonym of a series."""
        return self._of("series", SeriesInstanceUID)

    def instance(self, SOPInstanceUID: str) -> str:
        """Return the pseudonym of a SOP instance."""
        return self._of("instance", SOPInstanceUID)

    def transaction(self, ae_title: str, TransactionUID: str) -> str:
        """Return the pseudonym of a storage commitment that an AE asked for, or was asked for."""
        return self._of("transaction", ae_title, TransactionUID)

    def content(self, encoded: bytes) -> str:
        """Return what stands for a whole text: the same for the same bytes."""
        return self._of("content", encoded.hex())

    def result(self, instance: str, model_digest: str) -> str:
        """Return the identifier of what one model said about one instance (a pseudonym)."""
        return self._of("result", instance, model_digest)[:16]

    def _of(self, domain: str, *values: str) -> str:
        message = b"".join(len(part).to_bytes(4, "big") + part for part in (v.encode() for v in (domain, *values)))
        return hmac.digest(self._key, message, "sha256").hex()[:DIGITS]


def _normal(value: str) -> str:
    return unicodedata.normalize("NFC", value.strip(" \0"))
