"""Recording: one row per act, in the caller's transaction, numbered without gaps, identities sealed."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Engine, create_engine, select

from radnode.audit import events
from radnode.audit.events import Action, Actor, AuditOutcome, AuditRecord
from radnode.audit.log import AuditLog, audit_entries, line_of, metadata, open_sealed, patient_key
from radnode.errors import AuditError
from radnode.model import PeerIdentity

KEY = bytes(range(32))
ACTOR = Actor.of_peer(PeerIdentity("MODALITY1", "ab" * 32, "127.0.0.1"))
IDENTITY = {"PatientID": "4711", "PatientName": "Müller^Jürg\r\n", "StudyInstanceUID": "1.2.3"}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{tmp_path / 'radnode.db'}")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def received(**fields: object) -> AuditRecord:
    return AuditRecord(events.IMAGE_RECEIVED, ACTOR, patient="p" * 32, study="s" * 32, instance="i" * 32, **fields)


def rows(engine: Engine) -> list[tuple[int, str]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(audit_entries).order_by(audit_entries.c.seq))]


def test_entry_has_the_fields_of_the_trail_in_order(engine: Engine) -> None:
    with engine.begin() as connection:
        record = received(model="cxr-opacity 1.0.0", detail={"status": "0000", "bytes": 7}, action=Action.UPDATE)
        assert AuditLog(KEY).record(connection, record) == 1
    entry = json.loads(line_of(1, rows(engine)[0][1], "0" * 64))
    names = "seq timestamp event action outcome actor patient study instance model detail sealed prev"
    assert " ".join(entry) == names
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["timestamp"])
    assert (entry["event"], entry["action"], entry["outcome"]) == ("110104 image_received", "U", "success")
    assert entry["actor"] == {"ae": "MODALITY1", "certificate": "ab" * 32, "address": "127.0.0.1", "user": None}
    assert entry["detail"] == {"bytes": 7, "status": "0000"}
    assert entry["sealed"] is None


def test_rolled_back_record_leaves_no_row_and_no_gap(engine: Engine) -> None:
    log = AuditLog(KEY)
    with engine.begin() as connection:
        assert log.record(connection, received()) == 1
    for _ in range(3):
        with engine.connect() as connection:
            assert log.record(connection, received()) == 2
            connection.rollback()
    with engine.begin() as connection:
        assert [log.record(connection, received()) for _ in range(3)] == [2, 3, 4]
    assert [seq for seq, _ in rows(engine)] == [1, 2, 3, 4]


def test_number_of_a_deleted_last_row_is_never_given_again(engine: Engine) -> None:
    with engine.begin() as connection:
        AuditLog(KEY).record(connection, received())
        connection.execute(audit_entries.delete())
        assert AuditLog(KEY).record(connection, received()) == 2


def test_identity_is_sealed_and_opens_only_with_the_audit_key(engine: Engine) -> None:
    with engine.begin() as connection:
        AuditLog(KEY).record(connection, received(identity=IDENTITY))
    row = rows(engine)[0][1]
    assert not any(secret in row for secret in ("4711", "ller", "1.2.3"))
    entry = json.loads(line_of(1, row, "0" * 64))
    assert open_sealed(entry, KEY) == IDENTITY
    with pytest.raises(AuditError, match="does not open"):
        open_sealed(entry, bytes(32))


@pytest.mark.parametrize("field", ["timestamp", "event", "patient", "action"])
def test_sealed_identity_does_not_open_in_another_entry(engine: Engine, field: str) -> None:
    with engine.begin() as connection:
        AuditLog(KEY).record(connection, received(identity=IDENTITY))
    entry = json.loads(line_of(1, rows(engine)[0][1], "0" * 64))
    entry[field] = "other"
    with pytest.raises(AuditError, match="changed entry"):
        open_sealed(entry, KEY)


def test_entry_without_identity_opens_as_none(engine: Engine) -> None:
    assert open_sealed({"sealed": None}, KEY) is None


def test_hostile_text_stays_one_line_of_ascii(engine: Engine) -> None:
    hostile = 'A\r\n{"seq":9}\u2028\x00\x7f\ud800"%s<b>'
    with engine.begin() as connection:
        AuditLog(KEY).record(connection, AuditRecord(events.PEER_REFUSED, Actor(ae=hostile), detail={"rule": hostile}))
    line = line_of(1, rows(engine)[0][1], "0" * 64)
    assert b"\n" not in line
    assert line.isascii()
    assert json.loads(line)["actor"]["ae"] == hostile


def test_what_cannot_be_written_raises(engine: Engine, tmp_path: Path) -> None:
    metadata.drop_all(engine)
    with engine.connect() as connection, pytest.raises(AuditError, match="could not be written"):
        AuditLog(KEY).record(connection, received())


def test_a_value_without_json_form_raises(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(AuditError, match="no JSON form"):
        AuditLog(KEY).record(connection, received(identity={"PatientID": b"raw"}))


def test_a_short_audit_key_is_refused() -> None:
    with pytest.raises(AuditError, match="32 bytes"):
        AuditLog(b"short")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"detail": {"PatientName": "x"}}, "'PatientName' is not a detail"),
        ({"detail": {"status": 1.5}}, "text or a whole number"),
        ({"detail": {"status": True}}, "text or a whole number"),
        ({"detail": {"reason": "x" * 513}}, "longer than 512"),
        ({"study": "1.2.840.10008.1.1.1.1.1"}, "must be a pseudonym"),
        ({"patient": "4711"}, "must be a pseudonym"),
        ({"instance": ""}, "must be a pseudonym"),
    ],
)
def test_record_refuses_what_could_be_patient_data(fields: dict[str, object], message: str) -> None:
    with pytest.raises(AuditError, match=message):
        AuditRecord(events.IMAGE_RECEIVED, ACTOR, **fields)


def test_every_event_of_the_design_is_in_the_catalogue() -> None:
    assert {event.label for event in events.CATALOGUE.values()} == {
        "110100 node_started",
        "110100 node_stopped",
        "110101 trail_read",
        "110103 commitment_reported",
        "110103 commitment_requested",
        "110103 image_analysed",
        "110103 result_read",
        "110104 delivery_failed",
        "110104 image_forwarded",
        "110104 image_received",
        "110104 image_refused",
        "110104 image_sent",
        "110104 report_created",
        "110104 report_delivered",
        "110104 report_sent",
        "110105 study_purged",
        "110106 result_exported",
        "110113 access_refused",
        "110113 alert",
        "110113 command_used",
        "110113 config_changed",
        "110113 glass_broken",
        "110113 job_changed",
        "110113 key_changed",
        "110113 model_changed",
        "110113 model_refused",
        "110113 peer_refused",
        "110113 recording_started",
        "110113 recording_stopped",
        "110113 trail_purged",
    }
    assert events.PEER_REFUSED.type_code is not None
    assert events.PEER_REFUSED.type_code.value == "110126"
    assert [outcome.indicator for outcome in AuditOutcome] == [0, 4, 8]


def test_codes_and_meanings_are_those_of_the_standard() -> None:
    codedict = pytest.importorskip("pydicom.sr.codedict")
    known = {}
    for group in (codedict.codes.cid400, codedict.codes.cid401):
        for name in group.dir():
            code = getattr(group, name)
            known[code.value] = code.meaning
    for event in events.CATALOGUE.values():
        for code in filter(None, (event.code, event.type_code)):
            assert known[code.value] == code.meaning


def test_refusal_is_a_failure_unless_said_otherwise(engine: Engine) -> None:
    with engine.begin() as connection:
        AuditLog(KEY).record(connection, AuditRecord(events.PEER_REFUSED, Actor()))
        AuditLog(KEY).record(connection, AuditRecord(events.PEER_REFUSED, Actor(), outcome=AuditOutcome.SERIOUS))
    assert [json.loads(entry)["outcome"] for _, entry in rows(engine)] == ["minor", "serious"]


def test_key_of_one_patient_opens_the_entries_about_that_patient_and_no_others(engine: Engine) -> None:
    with engine.begin() as connection:
        for patient in ("p" * 32, "q" * 32, None):
            record = AuditRecord(events.IMAGE_RECEIVED, ACTOR, patient=patient, identity=IDENTITY)
            AuditLog(KEY).record(connection, record)
    entries = [json.loads(line_of(seq, row, "0" * 64)) for seq, row in rows(engine)]
    assert [open_sealed(entry, KEY) for entry in entries] == [IDENTITY] * 3
    blob = base64.b64decode(entries[0]["sealed"])
    bound = b"radnode audit identity v2\n" + rows(engine)[0][1].replace(entries[0]["sealed"], "null").encode()
    bound = bound.replace(b'"null"', b"null")
    opened = AESGCM(patient_key(KEY, "p" * 32)).decrypt(blob[:12], blob[12:], bound)
    assert json.loads(opened) == IDENTITY
    for other in ("q" * 32, None):
        with pytest.raises(InvalidTag):
            AESGCM(patient_key(KEY, other)).decrypt(blob[:12], blob[12:], bound)
