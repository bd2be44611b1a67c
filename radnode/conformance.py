"""The DICOM conformance statement (PS3.2) of one configuration, as values; `radnode conformance` prints it.

Nothing stands here that the code does not do: SOP classes and transfer syntaxes are those that the listener offers,
limits those of the settings, statuses those of the error tree.
"""

from __future__ import annotations

from typing import Any

from pydicom.charset import python_encoding

import radnode
from radnode import errors
from radnode.commitment_sets import MAX_BYTES, MAX_REFERENCES, STORAGE_COMMITMENT
from radnode.commitments import CLASS_INSTANCE_CONFLICT, NO_SUCH_OBJECT_INSTANCE, PROCESSING_FAILURE
from radnode.errors import RadnodeError
from radnode.network import statuses, tls, wire
from radnode.network.commitment import OFFERS
from radnode.network.contexts import VERIFICATION, VERIFICATION_TRANSFER_SYNTAXES, Contexts, keyword
from radnode.network.conversation import QUIET_SECONDS
from radnode.node import COMPREHENSIVE_3D_SR, EXPLICIT_VR_LITTLE_ENDIAN, Node
from radnode.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from radnode.settings import Settings

_ANSWERS = {
    statuses.SUCCESS: ("Success", "The object is sealed, durable, indexed and audited; or the same was before."),
}
_TITLES = {
    0x0110: "Processing failure",  # PS3.7 Annex C
    0x0111: "Duplicate SOP instance",
    0x0117: "Invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0211: "Unrecognized operation",
    0xA700: "Refused: out of resources",  # PS3.4 Table B.2-1
    0xA900: "Error: data set does not match SOP class",
    0xC000: "Error: cannot understand",
}
_ACTION = {
    statuses.SUCCESS: "Success: the request is durable",
    statuses.PROCESSING_FAILURE: "Processing failure",
    statuses.NO_SUCH_SOP_INSTANCE: "No such SOP instance",
    statuses.NO_SUCH_EVENT_TYPE: "No such event type (N-EVENT-REPORT)",
    statuses.INVALID_ARGUMENT_VALUE: "Invalid argument value",
    statuses.NO_SUCH_SOP_CLASS: "No such SOP class",
    statuses.NO_SUCH_ACTION_TYPE: "No such action",
    statuses.NOT_AUTHORISED: "Refused: not authorized",
    statuses.DUPLICATE_TRANSACTION_UID: "Duplicate transaction UID",
    statuses.RESOURCE_LIMITATION: "Resource limitation",
}
_FAILURES = {
    PROCESSING_FAILURE: "Processing failure: the object is missing or damaged",
    NO_SUCH_OBJECT_INSTANCE: "No such object instance",
    CLASS_INSTANCE_CONFLICT: "Class / instance conflict",
}
_HEARD = (0x0000, 0xB000, 0x0107, 0x0116, 0xA700, 0x0110, 0x0210, 0x0213, 0x0111, 0x0122, 0x0124, 0xA900, 0xC000)
_BECOMES = {
    statuses.Verdict.STORED: "delivered",
    statuses.Verdict.RETRY: "sent again later, with back-off",
    statuses.Verdict.REFUSED: "a dead letter, shown by `radnode jobs list`",
}


def statement(node: Node) -> dict[str, Any]:
    """Return the statement of a node's configuration; every value is JSON.

    Raises:
        ConfigError: a presentation context of the configuration is none.
        PackageError, NotFoundError: the policy asks for the detectors, and one cannot be read.
    """
    settings = node.settings
    offered = Contexts(settings.network, node.analysable())
    return {
        "implementation": {
            "name": "radnode",
            "version": radnode.__version__,
            "class_uid": IMPLEMENTATION_CLASS_UID,
            "version_name": IMPLEMENTATION_VERSION_NAME,
        },
        "application_entity": {
            "ae_title": settings.node.ae_title,
            "bind_address": settings.node.bind_address,
            "tls_port": settings.node.port,
            "plain_port": settings.node.plain_port or None,
        },
        "scp": [
            _service("Verification", [VERIFICATION], VERIFICATION_TRANSFER_SYNTAXES),
            _service("Storage", sorted(offered.sop_classes), offered.transfer_syntaxes),
            _service("Storage Commitment", [STORAGE_COMMITMENT], VERIFICATION_TRANSFER_SYNTAXES),
        ],
        "scu": [
            _service("Verification", [VERIFICATION], VERIFICATION_TRANSFER_SYNTAXES),
            _service("Storage", [COMPREHENSIVE_3D_SR], [EXPLICIT_VR_LITTLE_ENDIAN]),
            _service("Storage Commitment", [STORAGE_COMMITMENT], [syntax for _, syntax in OFFERS]),
        ],
        "unanalysable": settings.network.unanalysable,
        "detectors": list(node.rules.detectors),
        "acceptor": _acceptor(settings),
        "requestor": {
            "max_pdu_bytes": wire.MAX_LENGTH,
            "timeout_seconds": settings.deliver.timeout_seconds,
            "outstanding_operations": 1,
            "destinations": [
                {
                    "name": item.name,
                    "ae_title": item.ae_title,
                    "host": item.host,
                    "port": item.port,
                    "tls": item.tls,
                    "commitment": item.commitment,
                }
                for item in settings.destinations
            ],
        },
        "extended_negotiation": ["SCP/SCU role selection, of Storage Commitment alone"],
        "commitment": _commitment(settings),
        "store_statuses_sent": _sent(),
        "store_statuses_received": _received(),
        "character_sets": sorted(term for term in python_encoding if term),
        "security": _security(settings),
    }


def _service(name: str, sop_classes: list[str], transfer_syntaxes: list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {
        "service": name,
        "sop_classes": [{"uid": uid, "keyword": keyword(uid)} for uid in sop_classes],
        "transfer_syntaxes": [{"uid": uid, "keyword": keyword(uid)} for uid in transfer_syntaxes],
    }


def _acceptor(settings: Settings) -> dict[str, Any]:
    node = settings.node
    return {
        "max_associations": node.max_associations,
        "max_associations_per_peer": node.max_associations_per_peer,
        "max_pdu_bytes": node.max_pdu,
        "max_object_bytes": node.max_object_bytes,
        "outstanding_operations": 1,
        "handshake_seconds": node.handshake_seconds,
        "request_seconds": node.request_seconds,
        "idle_seconds": node.idle_seconds,
        "drain_seconds": node.drain_seconds,
    }


def _commitment(settings: Settings) -> dict[str, Any]:
    """Return how storage commitments are answered (PS3.4 Annex J)."""
    return {
        "max_references": MAX_REFERENCES,
        "max_bytes": MAX_BYTES,
        "quiet_seconds": QUIET_SECONDS,
        "retry_seconds": settings.deliver.retry_seconds,
        "retry_max_seconds": settings.deliver.retry_max_seconds,
        "commitment_seconds": settings.deliver.commitment_seconds,
        "peers": [
            {
                "ae_title": peer.ae_title,
                "address": None if peer.commit is None else f"{peer.commit.host}:{peer.commit.port}",
                "tls": peer.commit is not None and peer.commit.tls,
            }
            for peer in settings.peers
            if "commit" in peer.may
        ],
        "statuses_sent": [{"status": f"{code:04X}", "title": title} for code, title in sorted(_ACTION.items())],
        "failure_reasons": [{"reason": f"{code:04X}", "title": title} for code, title in sorted(_FAILURES.items())],
    }


def _sent() -> list[dict[str, str]]:
    """Return the statuses of C-STORE responses: one row a class of the error tree that has one."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RadnodeError)]
    rows = [(code, title, meaning) for code, (title, meaning) in _ANSWERS.items()]
    rows += [
        (kind.status, _TITLES[kind.status], (kind.__doc__ or "").partition("\n")[0])
        for kind in kinds
        if kind is not RadnodeError and "status" in vars(kind)
    ]
    return [{"status": f"{code:04X}", "title": title, "meaning": text} for code, title, text in sorted(rows)]


def _received() -> list[dict[str, str]]:
    """Return what becomes of a report after each status that a destination may answer."""
    judged = [(code, *statuses.classify(code)) for code in sorted(_HEARD)]
    becomes = {code: _BECOMES[verdict] for code, verdict, _ in judged}
    becomes[statuses.DUPLICATE_SOP_INSTANCE] = "delivered: a report's UID derives from what it says"
    return [{"status": f"{code:04X}", "title": title, "report": becomes[code]} for code, _, title in judged]


def _security(settings: Settings) -> dict[str, Any]:
    return {
        "profile": "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12)",
        "versions": ["TLS 1.2", "TLS 1.3"],
        "cipher_suites": [*tls.CIPHERS.split(":"), "all of TLS 1.3"],
        "client_certificate": "required" if settings.tls.require_client_certificate else "requested",
        "revocation_list": settings.tls.crl is not None,
        "ae_title_bound_to_certificate": True,
        "user_identity_negotiation": False,
        "audit_trail": "own format, docs/audit-trail.md; event codes of PS3.15 A.5",
    }
