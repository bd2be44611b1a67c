"""Why somebody used a command: sealed into every audit entry that the use makes.

A reason is written by a person, who may name the patient in it; so it stands with the identity, which only the audit
key opens, and not in the clear.
"""

from __future__ import annotations

from dataclasses import replace

from radnode.audit.events import AuditRecord
from radnode.audit.log import AuditLog

REASON = "Reason"


class ReasonedLog(AuditLog):
    """An audit log of one use of a command; `key` as for `AuditLog`."""

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(key)
        self._reason = reason

    def compose(self, record: AuditRecord) -> str:
        """Return the row of a record with the reason in its sealed part; raises as `AuditLog.compose`."""
        return super().compose(replace(record, identity={**(record.identity or {}), REASON: self._reason}))
