"""Results: what is printed has exactly the promised keys, and every look at it stands in the trail."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.analyses import ANALYSES, FINDING, NO_FINDING
from support.rooms import Rooms, encoded, request_for, small

from radnode.audit.events import Actor
from radnode.deliver.cargo import subject_of
from radnode.errors import AuditError, NotFoundError, StoreUnavailable
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import InstanceRow, get_instance, objects_beginning
from radnode.model import Analysis, JobKind
from radnode.results import Prepared, Report, Results, Secondary
from radnode.rules import Decision
from radnode.storage import extents

ACTOR = Actor(user="test")
# design/interface.md, and `created`, which the listing shows
KEYS = {"id", "outcome", "reason", "score", "peak", "findings", "model", "source", "report", "delivered", "created"} | {
    "secondary"
}
FINDING_KEYS = {"code", "scheme", "meaning", "score", "site", "laterality", "region", "diameter_mm", "volume_mm3"}
SOURCE = {"PatientID": "SECRET-1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def instance(rooms: Rooms, number: int = 1, **elements: object) -> InstanceRow:
    dataset = small(number, **elements)
    receipt = rooms.intake.receive(request_for(dataset), encoded(dataset), enqueue=False)
    with reading(rooms.engine) as tx:
        return get_instance(tx, receipt.instance)


def prepare(rooms: Rooms, analysis: Analysis = FINDING, number: int = 1, **elements: object) -> Prepared | None:
    report = Report(f"2.25.{number}", b"the report")
    return rooms.results.prepare(instance(rooms, number, **elements), SOURCE, analysis, report)


def store(rooms: Rooms, analysis: Analysis = FINDING, number: int = 1, **elements: object) -> str:
    prepared = prepare(rooms, analysis, number, **elements)
    assert prepared is not None
    with transaction(rooms.engine) as tx:
        rooms.results.commit(tx, [prepared], Decision(deliver=("pacs",)), ACTOR)
    rooms.now += 1
    return prepared.row.result


@pytest.mark.parametrize("name", ANALYSES)
def test_document_has_exactly_the_keys_of_the_interface(rooms: Rooms, name: str) -> None:
    document = rooms.results.show(store(rooms, ANALYSES[name]), ACTOR)
    assert set(document) == KEYS
    assert document["outcome"] == name
    assert (document["reason"] is None) is (name in ("finding", "no_finding"))
    assert (document["score"] is None) is (name in ("failed", "not_attempted"))
    assert set(document["model"]) == {"name", "version", "device_uid"}
    assert document["source"] == {key: value for key, value in SOURCE.items() if key != "PatientID"}
    assert document["report"] == {"SOPInstanceUID": "2.25.1"}
    assert document["delivered"] == [{"destination": "pacs", "state": "waiting", "tries": 0}]
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_findings_have_exactly_the_keys_of_the_interface(rooms: Rooms) -> None:
    findings = rooms.results.show(store(rooms), ACTOR)["findings"]
    assert len(findings) == 3
    for finding in findings:
        assert set(finding) == FINDING_KEYS
    assert findings[0]["region"] == {
        "kind": "box",
        "points": [[315.0, 106.0], [436.5, 106.0], [436.5, 318.0], [315.0, 318.0]],
        "frame": None,
    }
    assert findings[2]["region"] is None


def test_listing_is_newest_first_and_of_one_patient_where_asked(rooms: Rooms) -> None:
    first = store(rooms)
    second = store(rooms, NO_FINDING, 2, PatientID="OTHER")
    assert [item["id"] for item in rooms.results.listing(ACTOR)] == [second, first]
    other = rooms.pseudonyms.patient("", "OTHER")
    assert [item["id"] for item in rooms.results.listing(ACTOR, other)] == [second]
    assert len(rooms.results.listing(ACTOR, limit=1)) == 1


def test_every_use_is_audited_with_patient_and_user(rooms: Rooms) -> None:
    result = store(rooms)
    before = len(rooms.entries())
    rooms.results.show(result, ACTOR)
    rooms.results.listing(ACTOR)
    assert rooms.results.export(result, ACTOR).report == b"the report"
    events = [(entry["event"].split()[1], entry["actor"]["user"]) for entry in rooms.entries()[before:]]
    assert events == [("result_read", "test"), ("result_read", "test"), ("result_exported", "test")]
    assert len({entry["patient"] for entry in rooms.entries()}) == 1


def test_listing_is_one_entry_a_patient_with_the_count(rooms: Rooms) -> None:
    for number, patient in enumerate(("A", "B", "A"), 1):
        store(rooms, ANALYSES["finding"], number, PatientID=patient)
    before = len(rooms.entries())
    rooms.results.listing(ACTOR)
    rooms.results.listing(ACTOR, limit=1)
    found = [(entry["patient"], entry["detail"]) for entry in rooms.entries()[before:]]
    one, other = (rooms.pseudonyms.patient("", patient) for patient in "AB")
    assert found == [
        (one, {"command": "list", "count": 2}),
        (other, {"command": "list", "count": 1}),
        (one, {"command": "list", "count": 1}),
    ]


def test_search_for_a_patient_that_finds_nothing_is_audited(rooms: Rooms) -> None:
    patient = rooms.pseudonyms.patient("", "NOBODY")
    assert rooms.results.listing(ACTOR, patient) == []
    (entry,) = rooms.entries()
    assert (entry["patient"], entry["detail"]) == (patient, {"command": "list", "count": 0})
    assert rooms.results.listing(ACTOR) == []
    assert len(rooms.entries()) == 1


def test_what_cannot_be_audited_is_not_shown(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    result = store(rooms)

    def broken(*_: Any) -> int:
        raise AuditError("The audit entry could not be written.")

    monkeypatch.setattr(rooms.audit, "record", broken)
    for use in (rooms.results.show, rooms.results.export):
        with pytest.raises(AuditError):
            use(result, ACTOR)


def test_unknown_result_is_not_found_and_not_audited(rooms: Rooms) -> None:
    for use in (rooms.results.show, rooms.results.export):
        with pytest.raises(NotFoundError, match="results list"):
            use("0" * 16, ACTOR)
    assert rooms.entries() == []


def test_same_result_is_prepared_once(rooms: Rooms) -> None:
    store(rooms)
    count = len(rooms.kept_objects())
    assert prepare(rooms) is None
    assert len(rooms.kept_objects()) == count


def test_result_committed_by_another_meanwhile_is_left_out_and_its_objects_go(rooms: Rooms) -> None:
    late = prepare(rooms)
    assert late is not None
    result = store(rooms)
    with transaction(rooms.engine) as tx:
        rooms.results.commit(tx, [late], Decision(deliver=("pacs",)), ACTOR)
    rooms.results.discard([late])
    assert rooms.count("results") == 1
    assert len(rooms.kept_objects()) == 3
    assert rooms.results.show(result, ACTOR)["id"] == result


def test_secondary_objects_are_one_commit_with_their_report_and_go_where_they_are_taken(rooms: Rooms) -> None:
    results = Results(rooms.stores, {"archive": ("gsps",), "plain": ()})
    drawn = [Secondary("sc", 1, "2.25.8", b"picture"), Secondary("gsps", 1, "2.25.9", b"overlay")]
    prepared = results.prepare(instance(rooms), SOURCE, FINDING, Report("2.25.1", b"the report"), secondary=drawn)
    assert prepared is not None
    with transaction(rooms.engine) as tx:
        results.commit(tx, [prepared], Decision(deliver=("pacs", "archive", "plain")), ACTOR)
    found, waiting = prepared.row.result, {"state": "waiting", "tries": 0}
    document = results.show(found, ACTOR)
    assert [item["destination"] for item in document["delivered"]] == ["pacs", "archive", "plain"]
    assert document["secondary"] == [
        {
            "object": "sc1",
            "kind": "sc",
            "SOPInstanceUID": "2.25.8",
            "delivered": [{"destination": "pacs", **waiting}],
        },
        {
            "object": "gsps1",
            "kind": "gsps",
            "SOPInstanceUID": "2.25.9",
            "delivered": [{"destination": name, **waiting} for name in ("pacs", "archive")],
        },
    ]
    assert rooms.vault.sweep(lambda prefix: _named(rooms, prefix)) == 0
    with reading(rooms.engine) as tx:
        picture, overlay = (subject_of(tx, JobKind.DELIVER, f"{found}.{name}") for name in ("sc1", "gsps1"))
    assert [rooms.vault.get(item.object_id) for item in (picture, overlay)] == [b"picture", b"overlay"]
    assert (picture.names, picture.patient) == ({"result": found, "object": "sc1"}, prepared.row.patient)


def test_export_opens_what_its_form_needs_and_no_more(rooms: Rooms) -> None:
    drawn = [Secondary("sc", number, f"2.25.{number}", bytes([number])) for number in (1, 2)]
    drawn.append(Secondary("gsps", 1, "2.25.9", b"overlay"))
    prepared = rooms.results.prepare(instance(rooms), SOURCE, FINDING, Report("2.25.1", b"the report"), secondary=drawn)
    assert prepared is not None
    with transaction(rooms.engine) as tx:
        rooms.results.commit(tx, [prepared], Decision(), ACTOR)
    found = prepared.row.result
    for form in ("sc", "html", "pdf"):
        assert rooms.results.export(found, ACTOR, form).secondary == (b"\1", b"\2")
    for row in prepared.secondary[:2]:
        rooms.vault.discard(row.object_id)
    assert rooms.results.export(found, ACTOR, "gsps").secondary == (b"overlay",)
    assert rooms.results.export(found, ACTOR, "sr").report == b"the report"
    with pytest.raises(NotFoundError):
        rooms.results.export(found, ACTOR, "sc")


def test_discarded_result_leaves_no_secondary_object(rooms: Rooms) -> None:
    drawn = [Secondary("sc", 1, "2.25.8", b"picture")]
    row = instance(rooms)
    prepared = rooms.results.prepare(row, SOURCE, FINDING, Report("2.25.1", b"the report"), secondary=drawn)
    assert prepared is not None
    assert len(rooms.kept_objects()) == 4
    rooms.results.discard([prepared])
    assert len(rooms.kept_objects()) == 1


def _named(rooms: Rooms, prefix: bytes) -> list[bytes]:
    with reading(rooms.engine) as tx:
        return objects_beginning(tx, prefix)


def test_discard_never_takes_what_the_index_names(rooms: Rooms) -> None:
    prepared = prepare(rooms)
    assert prepared is not None
    with transaction(rooms.engine) as tx:
        rooms.results.commit(tx, [prepared], Decision(), ACTOR)
    rooms.results.discard([prepared])
    assert rooms.results.export(prepared.row.result, ACTOR).report == b"the report"


def test_disk_that_fills_up_between_the_two_objects_leaves_neither(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = instance(rooms)
    real, calls = os.pwrite, []

    def write(descriptor: int, data: memoryview, position: int) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data, position)

    monkeypatch.setattr(extents.os, "pwrite", write)
    with pytest.raises(StoreUnavailable):
        rooms.results.prepare(row, SOURCE, FINDING, Report("2.25.1", b"r"))
    assert len(rooms.kept_objects()) == 1
