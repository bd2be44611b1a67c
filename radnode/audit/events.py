"""What can be audited: the closed catalogue of events, and the record of one of them.

Codes are those of DICOM audit messages (PS3.15 A.5): EventID from PS3.16 CID 400, EventTypeCode from CID 401.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from radnode.errors import AuditError
from radnode.model import Code, PeerIdentity


class Action(enum.StrEnum):
    """EventActionCode (PS3.15 A.5.1)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class AuditOutcome(enum.StrEnum):
    """How the audited act ended; `indicator` is the EventOutcomeIndicator (PS3.15 A.5.1)."""

    SUCCESS = "success"
    MINOR = "minor"
    SERIOUS = "serious"

    @property
    def indicator(self) -> int:
        """0, 4 or 8."""
        return {"success": 0, "minor": 4, "serious": 8}[self.value]


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event. `action` and `outcome` are what holds unless a record says otherwise."""

    code: Code
    name: str
    action: Action
    type_code: Code | None = None
    outcome: AuditOutcome = AuditOutcome.SUCCESS

    @property
    def label(self) -> str:
        """The DICOM code with the event's name, as it stands in the trail: `110104 image_received`."""
        return f"{self.code.value} {self.name}"


# PS3.16 CID 400 Audit Event ID
_ACTIVITY = Code("110100", "DCM", "Application Activity")
_LOG_USED = Code("110101", "DCM", "Audit Log Used")
_ACCESSED = Code("110103", "DCM", "DICOM Instances Accessed")
_TRANSFERRED = Code("110104", "DCM", "DICOM Instances Transferred")
_DELETED = Code("110105", "DCM", "DICOM Study Deleted")
_EXPORT = Code("110106", "DCM", "Export")
_ALERT = Code("110113", "DCM", "Security Alert")
# PS3.16 CID 401 Audit Event Type Code
_START = Code("110120", "DCM", "Application Start")
_STOP = Code("110121", "DCM", "Application Stop")
_NODE_AUTHENTICATION = Code("110126", "DCM", "Node Authentication")
_EMERGENCY_OVERRIDE = Code("110127", "DCM", "Emergency Override Started")
_SECURITY_CONFIGURATION = Code("110129", "DCM", "Security Configuration")
_SOFTWARE_CONFIGURATION = Code("110131", "DCM", "Software Configuration")
_RESTRICTED_FUNCTION = Code("110132", "DCM", "Use of Restricted Function")
_RECORDING_STOPPED = Code("110133", "DCM", "Audit Recording Stopped")
_RECORDING_STARTED = Code("110134", "DCM", "Audit Recording Started")

NODE_STARTED: Final = Event(_ACTIVITY, "node_started", Action.EXECUTE, _START)
NODE_STOPPED: Final = Event(_ACTIVITY, "node_stopped", Action.EXECUTE, _STOP)
RECORDING_STARTED: Final = Event(_ALERT, "recording_started", Action.EXECUTE, _RECORDING_STARTED)
RECORDING_STOPPED: Final = Event(_ALERT, "recording_stopped", Action.EXECUTE, _RECORDING_STOPPED)
PEER_REFUSED: Final = Event(_ALERT, "peer_refused", Action.EXECUTE, _NODE_AUTHENTICATION, AuditOutcome.MINOR)
# PS3.15 A.5.3.7: C the receiver did not hold it, R it held the same, U it held it otherwise
IMAGE_RECEIVED: Final = Event(_TRANSFERRED, "image_received", Action.CREATE)
IMAGE_REFUSED: Final = Event(_TRANSFERRED, "image_refused", Action.CREATE, outcome=AuditOutcome.MINOR)
IMAGE_ANALYSED: Final = Event(_ACCESSED, "image_analysed", Action.READ)
REPORT_CREATED: Final = Event(_TRANSFERRED, "report_created", Action.CREATE)
REPORT_SENT: Final = Event(_TRANSFERRED, "report_sent", Action.CREATE)
REPORT_DELIVERED: Final = Event(_TRANSFERRED, "report_delivered", Action.CREATE)
IMAGE_SENT: Final = Event(_TRANSFERRED, "image_sent", Action.CREATE)
IMAGE_FORWARDED: Final = Event(_TRANSFERRED, "image_forwarded", Action.CREATE)
DELIVERY_FAILED: Final = Event(_TRANSFERRED, "delivery_failed", Action.CREATE, outcome=AuditOutcome.SERIOUS)
COMMITMENT_REQUESTED: Final = Event(_ACCESSED, "commitment_requested", Action.READ)
COMMITMENT_REPORTED: Final = Event(_ACCESSED, "commitment_reported", Action.READ)
RESULT_READ: Final = Event(_ACCESSED, "result_read", Action.READ)
RESULT_EXPORTED: Final = Event(_EXPORT, "result_exported", Action.READ)
TRAIL_READ: Final = Event(_LOG_USED, "trail_read", Action.READ)
TRAIL_PURGED: Final = Event(_ALERT, "trail_purged", Action.EXECUTE, _RESTRICTED_FUNCTION)
STUDY_PURGED: Final = Event(_DELETED, "study_purged", Action.DELETE)
KEY_CHANGED: Final = Event(_ALERT, "key_changed", Action.EXECUTE, _SECURITY_CONFIGURATION)
CONFIG_CHANGED: Final = Event(_ALERT, "config_changed", Action.EXECUTE, _SECURITY_CONFIGURATION)
MODEL_CHANGED: Final = Event(_ALERT, "model_changed", Action.EXECUTE, _SOFTWARE_CONFIGURATION)
MODEL_REFUSED: Final = Event(_ALERT, "model_refused", Action.EXECUTE, _SOFTWARE_CONFIGURATION, AuditOutcome.SERIOUS)
JOB_CHANGED: Final = Event(_ALERT, "job_changed", Action.EXECUTE, _RESTRICTED_FUNCTION)
COMMAND_USED: Final = Event(_ALERT, "command_used", Action.EXECUTE, _RESTRICTED_FUNCTION)
ACCESS_REFUSED: Final = Event(_ALERT, "access_refused", Action.EXECUTE, _RESTRICTED_FUNCTION, AuditOutcome.MINOR)
GLASS_BROKEN: Final = Event(_ALERT, "glass_broken", Action.EXECUTE, _EMERGENCY_OVERRIDE, AuditOutcome.SERIOUS)
ALERT: Final = Event(_ALERT, "alert", Action.EXECUTE, _RESTRICTED_FUNCTION, AuditOutcome.MINOR)

CATALOGUE: Final[Mapping[str, Event]] = {
    event.name: event for event in tuple(globals().values()) if isinstance(event, Event)
}

DETAIL_KEYS: Final = frozenset(
    {
        "ae_title",  # what a refused peer claimed, escaped to printable ASCII
        "attempt",
        "bytes",
        # what an operator did: added, activated, rolled_back, shadowed, unshadowed, removed, trusted, distrusted,
        # retried, discarded, paused, resumed, repeated, rotated, rewrapping, rewrapped, retired, copy_forgotten;
        "change",  # what the node did: refusing_images, accepting_images; of a file: unusable
        "command",
        "count",
        "destination",
        "commitment",  # pseudonym of a storage commitment
        "digest",  # SHA-256, hex
        "failed",  # how many instances a storage commitment does not hold for
        "first",  # first and last: the range of trail entries that was read, or purged
        "format",
        "job",
        "job_kind",
        "object",  # which secondary object of a result: kind and number
        "key",  # identifier of a key, never the key
        "last",
        "outcome",  # of an analysis (model.Outcome)
        "pid",
        "purpose",  # of a disclosure (45 CFR 164.528); "identity" where a sealed identity was opened
        "reason",  # model.Reason, or the sentence why a delivery failed
        "recipient",  # who a destination was at that moment, or the AE title of a peer that was answered
        "report",  # pseudonym of a report's SOP instance
        "result",  # identifier of a stored result
        "rule",  # model.Refusal.rule
        "setting",
        "sop_class",
        "status",
        "transfer_syntax",
        "version",
    }
)
MAX_DETAIL_LENGTH: Final = 512

_PSEUDONYM = re.compile(r"[A-Za-z0-9_-]{16,64}")  # hex or base64url; a UID or a patient's name cannot pass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: a peer by AE title, certificate SHA-256 (hex) and IP address, or a local user by name."""

    ae: str | None = None
    certificate: str | None = None
    address: str | None = None
    user: str | None = None

    @classmethod
    def of_peer(cls, peer: PeerIdentity) -> Actor:
        """The actor that a network peer is."""
        return cls(ae=peer.ae_title, certificate=peer.certificate, address=peer.address)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One audited act, before it has a number and a time.

    `action` and `outcome` default to those of the event. `patient`, `study` and `instance` are keyed
    pseudonyms (16 to 64 of A-Z a-z 0-9 _ -). `model` is name and version. `detail` holds only keys of
    DETAIL_KEYS with str (at most MAX_DETAIL_LENGTH characters) or int values. `identity` is what the patient
    is really called (PatientID, StudyInstanceUID, ...); it is sealed before it is stored.

    Raises AuditError when a pseudonym or a detail is none.
    """

    event: Event
    actor: Actor
    action: Action | None = None
    outcome: AuditOutcome | None = None
    patient: str | None = None
    study: str | None = None
    instance: str | None = None
    model: str | None = None
    detail: Mapping[str, str | int] = field(default_factory=dict)
    identity: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in ("patient", "study", "instance"):
            value = getattr(self, name)
            if value is not None and not _PSEUDONYM.fullmatch(value):
                raise AuditError(f"The {name} of an audit record must be a pseudonym, not an identifier.")
        unknown = sorted(set(self.detail) - DETAIL_KEYS)
        if unknown:
            raise AuditError(f"{unknown[0]!r} is not a detail the audit trail may hold; see DETAIL_KEYS.")
        for key, value in self.detail.items():
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise AuditError(f"The audit detail {key!r} must be text or a whole number.")
            if isinstance(value, str) and len(value) > MAX_DETAIL_LENGTH:
                raise AuditError(f"The audit detail {key!r} is longer than {MAX_DETAIL_LENGTH} characters.")
