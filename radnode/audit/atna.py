"""Entries of the trail as DICOM audit messages (PS3.15 A.5): one XML document for each entry.

What stands in them is valid against the schema of PS3.15 A.5.1 and against that of dcm4che, which differ: every
ParticipantObjectIdentification has a name and a description, no element is used that only one of them knows.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from radnode.audit.events import CATALOGUE, AuditOutcome
from radnode.model import Code

Entry = Mapping[str, Any]

# PS3.16 CID 402 Audit Active Participant Role ID Code
_APPLICATION = Code("110150", "DCM", "Application")
_LAUNCHER = Code("110151", "DCM", "Application Launcher")
_DESTINATION = Code("110152", "DCM", "Destination Role ID")
_SOURCE = Code("110153", "DCM", "Source Role ID")
# PS3.15 Table A.5.1-1, ParticipantObjectIDTypeCode; PS3.16 CID 404
_PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
_URI = Code("12", "RFC-3881", "URI")
_STUDY = Code("110180", "DCM", "Study Instance UID")
_NODE = Code("110182", "DCM", "Node ID")

_INDICATOR = {outcome.value: str(outcome.indicator) for outcome in AuditOutcome}
_RECEIVED: Final = frozenset({"image_received", "image_refused"})
_OID = re.compile(r"[0-2]((\.0)|(\.[1-9][0-9]*))*")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


@dataclass(frozen=True, slots=True)
class Source:
    """The node that tells: its AE title, the name of its machine, and what its trail is called."""

    ae_title: str
    host: str
    trail: str


def message(entry: Entry, source: Source, identity: Mapping[str, str] | None = None) -> bytes:
    """Return the audit message of one entry in UTF-8.

    Patient, study and instance are named by their pseudonyms, as OIDs where the schema demands those, or by `identity`
    (PatientID, StudyInstanceUID, SOPInstanceUID) where it is given.
    """
    event = CATALOGUE[str(entry["event"]).partition(" ")[2]]
    root = Element("AuditMessage")
    said = SubElement(
        root,
        "EventIdentification",
        EventActionCode=entry["action"],
        EventDateTime=entry["timestamp"],
        EventOutcomeIndicator=_INDICATOR[entry["outcome"]],
    )
    _code(said, "EventID", event.code)
    if event.type_code is not None:
        _code(said, "EventTypeCode", event.type_code)
    if entry["outcome"] != AuditOutcome.SUCCESS:
        SubElement(said, "EventOutcomeDescription").text = _clean(_description(entry, event.name))
    _participants(root, entry, source, event.code.value, event.name)
    audit_source = SubElement(root, "AuditSourceIdentification", AuditSourceID=_clean(source.ae_title))
    SubElement(audit_source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    _objects(root, entry, source, event.code.value, event.name, identity or {})
    return b'<?xml version="1.0" encoding="UTF-8"?>' + tostring(root, encoding="unicode").encode()


def _participants(root: Element, entry: Entry, source: Source, code: str, name: str) -> None:
    """Add who took part: who asked for it first."""
    actor, node = entry["actor"], {"ae": source.ae_title, "address": None, "user": None}
    if code == "110100":
        _participant(root, node, source, _APPLICATION, requestor=False)
        _participant(root, {**actor, "ae": None}, source, _LAUNCHER, requestor=True)
    elif code == "110104" and name in _RECEIVED:
        _participant(root, actor, source, _SOURCE, requestor=True)
        _participant(root, node, source, _DESTINATION, requestor=False)
    elif code in ("110104", "110106"):
        where = entry["detail"].get("destination") or entry["detail"].get("recipient")
        other = {"ae": where or (source.ae_title if code == "110104" else "file"), "address": None, "user": None}
        _participant(root, actor, source, _SOURCE, requestor=True)
        _participant(root, other, source, _DESTINATION, requestor=False, is_here=where is None)
    elif code == "110113":
        _participant(root, node, source, None, requestor=False)
        _participant(root, actor, source, None, requestor=True)
    else:
        _participant(root, actor, source, None, requestor=True)


def _participant(
    root: Element, actor: Entry, source: Source, role: Code | None, *, requestor: bool, is_here: bool = True
) -> None:
    """Add one active participant; one of no address is on this machine, unless told otherwise."""
    attributes = {"UserID": _clean(actor["user"] or actor["ae"] or actor["address"] or "unknown")}
    if actor["ae"]:
        attributes["AlternativeUserID"] = _clean(f"AETITLES={actor['ae']}")
    elif actor["user"] and actor.get("certificate"):  # with which a person has come
        attributes["AlternativeUserID"] = f"CERTIFICATE_SHA256={actor['certificate']}"
    attributes["UserIsRequestor"] = "true" if requestor else "false"
    if actor["address"]:
        attributes |= {"NetworkAccessPointID": actor["address"], "NetworkAccessPointTypeCode": "2"}
    elif is_here:
        attributes |= {"NetworkAccessPointID": _clean(source.host), "NetworkAccessPointTypeCode": "1"}
    element = SubElement(root, "ActiveParticipant", attributes)
    if role is not None:
        _code(element, "RoleIDCode", role)


def _objects(root: Element, entry: Entry, source: Source, code: str, name: str, identity: Mapping[str, str]) -> None:
    """Add what it was about: the trail, the setting or the node, the study, the patient."""
    study = identity.get("StudyInstanceUID") or _oid(entry["study"])
    study = study if study and _OID.fullmatch(study) else None
    details = {"seq": entry["seq"], **entry["detail"]}
    if code == "110101":
        _object(root, ("2", "13"), _URI, source.trail, "Security Audit Log", details, None)
    if code in ("110113", "110100"):
        subject = str(entry["detail"].get("setting") or source.ae_title)
        alert = {"Alert Description": _description(entry, name)} if code == "110113" else {}
        _object(root, ("2", "13"), _NODE, subject, name, {**alert, **details}, study)
    if study is not None:
        element = _object(root, ("2", "3"), _STUDY, study, "Study", {} if code == "110113" else details, study)
        _instances(element, entry, identity)
    if entry["patient"] is not None:
        about = {} if study is not None or code in ("110113", "110101") else details
        number = identity.get("PatientID") or entry["patient"]
        _object(root, ("1", "1"), _PATIENT_NUMBER, number, "Patient", about, study)


def _object(
    root: Element, kind: tuple[str, str], type_code: Code, number: str, name: str, details: Entry, study: str | None
) -> Element:
    """Add one participant object of (ParticipantObjectTypeCode, ...Role); return its description."""
    attributes = {"ParticipantObjectID": _clean(number), "ParticipantObjectTypeCode": kind[0]}
    element = SubElement(root, "ParticipantObjectIdentification", attributes, ParticipantObjectTypeCodeRole=kind[1])
    _code(element, "ParticipantObjectIDTypeCode", type_code)
    SubElement(element, "ParticipantObjectName").text = name
    for key, value in details.items():
        encoded = base64.b64encode(str(value).encode("utf-8", "backslashreplace")).decode()
        SubElement(element, "ParticipantObjectDetail", type=key, value=encoded)
    description = SubElement(element, "ParticipantObjectDescription")
    contains = SubElement(description, "ParticipantObjectContainsStudy")
    if study is not None:
        SubElement(contains, "StudyIDs", UID=study)
    return description


def _instances(description: Element, entry: Entry, identity: Mapping[str, str]) -> None:
    """Say which instance of the study it was, where its SOP class is known."""
    sop_class = str(entry["detail"].get("sop_class", ""))
    if not _OID.fullmatch(sop_class):
        return
    element = Element("SOPClass", UID=sop_class, NumberOfInstances="1")
    instance = identity.get("SOPInstanceUID") or _oid(entry["instance"])
    if instance and _OID.fullmatch(instance):
        SubElement(element, "Instance", UID=instance)
    description.insert(0, element)


def _description(entry: Entry, name: str) -> str:
    """Return one line that says what happened, from the details."""
    told = "; ".join(f"{key} {value}" for key, value in entry["detail"].items())
    return f"{name.replace('_', ' ')}: {told}" if told else name.replace("_", " ")


def _code(parent: Element, tag: str, code: Code) -> None:
    coded = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    SubElement(parent, tag, coded)


def _oid(pseudonym: str | None) -> str | None:
    """Return a pseudonym of 32 hex digits as an OID below 2.25 (PS3.5 section B.2)."""
    try:
        return None if pseudonym is None else f"2.25.{int(pseudonym, 16)}"
    except ValueError:
        return None


def _clean(text: str) -> str:
    """Return a text of one line that XML can hold, without leading and trailing blanks: an xs:token."""
    return " ".join(_NOT_XML.sub(lambda match: json.dumps(match[0])[1:-1], text).split()) or "-"
