"""A purged study is gone: rows, key and room; others stay, and an image that arrives at that moment is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Connection, select
from support.analyses import NO_FINDING
from support.rooms import Rooms, encoded, request_for, small

from radnode import purge as purge_module
from radnode.audit.events import Actor
from radnode.errors import KeyUnavailable, NotFoundError, RadnodeError, StoreUnavailable
from radnode.intake import Receipt
from radnode.jobs import schema
from radnode.jobs.completion import Completion
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import get_instance
from radnode.jobs.sendings import add_sending
from radnode.jobs.series import SeriesRow, add_series_result
from radnode.maintenance import alone
from radnode.model import JobKind, pour
from radnode.purge import Purge, Purged
from radnode.results import Report, Secondary
from radnode.rules import Decision
from radnode.settings import CompletionSettings, RuleSettings

ACTOR = Actor(user="tester")
RULES = (RuleSettings(detect=("d",), deliver=("pacs",), forward=("pacs",)),)


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path, rules=RULES)
    yield found
    found.close()


def image(number: int, study: str, patient: str = "P1") -> Dataset:
    return small(number, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", PatientID=patient)


def receive(rooms: Rooms, dataset: Dataset) -> Receipt:
    return rooms.intake.receive(request_for(dataset), encoded(dataset))


def fill(rooms: Rooms, study: str, first: int) -> list[Receipt]:
    """A study with two images of two patients, results of an image and of a series, jobs and sendings of every kind."""
    receipts = [receive(rooms, image(first, study)), receive(rooms, image(first + 1, study, "P2"))]
    with reading(rooms.engine) as tx:
        kept = get_instance(tx, receipts[0].instance)
    uids = {name: f"{study}.9" for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    picture = Secondary("sc", 1, f"{study}.8", b"picture")
    prepared = rooms.results.prepare(kept, uids, NO_FINDING, Report(f"{study}.7", b"report"), secondary=[picture])
    assert prepared is not None
    with transaction(rooms.engine) as tx:
        rooms.results.commit(tx, [prepared], Decision((), ("pacs",)), ACTOR)
    completion = Completion(
        rooms.engine, rooms.queue, CompletionSettings(quiet_seconds=1.0, expected_instances=2), rooms.clock
    )
    with transaction(rooms.engine) as tx:
        completion.touch(tx, kept, 2)
    rooms.now += 2
    assert [done.generation for done in completion.decide()] == [1]
    with transaction(rooms.engine) as tx:
        series = SeriesRow(kept.series, kept.study, kept.patient, 1)
        add_series_result(tx, series, "d", prepared.row.result)
    for kind in (JobKind.DELIVER, JobKind.FORWARD):
        leases = rooms.queue.lease(kind, "t", 60, 10, "pacs")
        with transaction(rooms.engine) as tx:
            for lease in leases:
                add_sending(tx, lease, kept.instance)
                rooms.queue.postpone(tx, lease, 0, "sent")
    return receipts


def named(tx: Connection, words: set[str]) -> dict[str, int]:
    """In which tables (but the trail) one of these words stands, and how often."""
    found = {}
    for table in schema.metadata.sorted_tables:
        text = [str(tuple(row)) for row in tx.execute(select(table))]
        count = sum(any(word in line for word in words) for line in text)
        found |= {table.name: count} if count else {}
    return found


def test_study_leaves_no_row_no_key_and_no_room_and_others_stay(rooms: Rooms) -> None:
    gone, kept = fill(rooms, "1.2.100", 1), fill(rooms, "1.2.200", 11)
    words = {receipt.study for receipt in gone} | {receipt.series for receipt in gone}
    words |= {receipt.instance for receipt in gone}
    with reading(rooms.engine) as tx:
        objects = set(tx.scalars(select(schema.instances.c.object_id).where(schema.instances.c.study == gone[0].study)))
        words |= set(tx.scalars(select(schema.results.c.result).where(schema.results.c.study == gone[0].study)))
        before = named(tx, words)
    filled = {"instances", "study_patients", "results", "secondary", "sendings", "series"}
    filled |= {"series_images", "series_results", "jobs"}
    assert set(before) == filled, "the test is to fill every table"
    other = {name: rooms.count(name) for name in filled}
    assert rooms.keys.of_study(gone[0].study)
    purge = Purge(rooms.stores)
    assert purge.look(gone[0].study) == Purged(gone[0].study, 2, 1)
    assert purge.study(gone[0].study, ACTOR, "request") == Purged(gone[0].study, 2, 1)
    with pytest.raises(NotFoundError):
        purge.look(gone[0].study)
    with reading(rooms.engine) as tx:
        assert named(tx, words) == {}
    assert {name: rooms.count(name) for name in filled} == {name: count // 2 for name, count in other.items()}
    assert rooms.count("study_keys") == 1
    assert rooms.count("doomed_objects") == 5
    assert purge.reclaim() == 5
    assert rooms.count("doomed_objects") == 0
    assert len(rooms.kept_objects()) == 5
    assert not objects & set(rooms.kept_objects())
    with reading(rooms.engine) as tx:
        assert rooms.vault.get(get_instance(tx, kept[0].instance).object_id)
    entries = [entry for entry in rooms.entries() if entry["event"] == "110105 study_purged"]
    assert {entry["patient"] for entry in entries} == {receipt.patient for receipt in gone}
    assert {(entry["study"], entry["detail"]["count"], entry["detail"]["reason"]) for entry in entries} == {
        (gone[0].study, 2, "request")
    }
    with pytest.raises(NotFoundError):
        purge.study(gone[0].study, ACTOR, "request")


def test_wrapped_key_and_object_ids_of_a_purged_study_are_in_no_file_of_the_database(rooms: Rooms) -> None:
    receipt = receive(rooms, image(1, "1.2.100"))
    with rooms.engine.connect() as connection:
        (wrapped,) = connection.exec_driver_sql("SELECT wrapped FROM study_keys").scalars()
        (object_id,) = connection.exec_driver_sql("SELECT object_id FROM instances").scalars()
    purge = Purge(rooms.stores)
    purge.study(receipt.study, ACTOR, "request")
    purge.reclaim()
    rooms.engine.dispose()
    on_disk = b"".join(path.read_bytes() for path in rooms.folder.glob("node.db*"))
    assert wrapped not in on_disk
    assert object_id not in on_disk


def test_copy_of_the_objects_does_not_open_without_the_key(rooms: Rooms) -> None:
    receipt = receive(rooms, image(1, "1.2.100"))
    with reading(rooms.engine) as tx:
        object_id = get_instance(tx, receipt.instance).object_id
    Purge(rooms.stores).study(receipt.study, ACTOR, "request")  # the room is still taken: nothing was given back
    another = Rooms(rooms.folder)
    with pytest.raises(KeyUnavailable, match="purged"):
        another.vault.get(object_id)
    another.close()


def test_image_that_arrives_while_its_study_is_purged_is_refused_a700_and_kept_when_it_comes_again(
    rooms: Rooms,
) -> None:
    first, second = image(1, "1.2.100"), image(2, "1.2.100")
    receipt = receive(rooms, first)
    reception = rooms.intake.begin(request_for(second))
    pour(memoryview(encoded(second)), reception)
    Purge(rooms.stores).study(receipt.study, ACTOR, "request")
    with pytest.raises(KeyUnavailable, match="send it again") as caught:
        reception.finish()
    assert caught.value.status == 0xA700
    assert rooms.count("instances") == rooms.count("jobs") == rooms.count("study_keys") == 0
    Purge(rooms.stores).reclaim()
    assert rooms.holds_nothing()
    again = receive(rooms, second)
    with reading(rooms.engine) as tx:
        assert rooms.vault.get(get_instance(tx, again.instance).object_id)
    assert rooms.count("study_keys") == rooms.count("study_patients") == 1


def test_another_process_that_has_the_old_key_in_memory_seals_nothing_that_is_kept_under_it(rooms: Rooms) -> None:
    listener = Rooms(rooms.folder)
    receipt = receive(listener, image(1, "1.2.100"))
    Purge(rooms.stores).study(receipt.study, ACTOR, "request")
    receive(rooms, image(2, "1.2.100"))  # the study is there again, under another key
    with pytest.raises(KeyUnavailable):
        receive(listener, image(3, "1.2.100"))
    kept = receive(listener, image(3, "1.2.100"))
    with reading(rooms.engine) as tx:
        assert rooms.vault.get(get_instance(tx, kept.instance).object_id)
    listener.close()


def test_one_purged_study_fails_no_other_image_of_the_same_commit(rooms: Rooms) -> None:
    doomed, fine = image(1, "1.2.100"), image(2, "1.2.200")
    receptions = []
    for dataset in (doomed, fine):
        reception = rooms.intake.begin(request_for(dataset))
        pour(memoryview(encoded(dataset)), reception)
        receptions.append(reception)
    rooms.keys.of_study(rooms.pseudonyms.study("1.2.100"))
    Purge(rooms.stores).study(rooms.pseudonyms.study("1.2.100"), ACTOR, "request")
    assert receptions[1].finish().study == rooms.pseudonyms.study("1.2.200")


def test_study_that_is_being_delivered_is_waited_for(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_module, "PATIENCE_SECONDS", 0.05)
    (receipt, _) = fill(rooms, "1.2.100", 1)
    (lease, *_) = rooms.queue.lease(JobKind.DELIVER, "t", 60, 1, "pacs")
    with pytest.raises(RadnodeError, match="being delivered"):
        Purge(rooms.stores).study(receipt.study, ACTOR, "request")
    assert rooms.count("instances") == 2
    monkeypatch.setattr(purge_module, "PATIENCE_SECONDS", 30)

    def settle(_seconds: float) -> None:
        with transaction(rooms.engine) as tx:
            rooms.queue.finish(tx, lease)

    assert Purge(rooms.stores, sleep=settle).study(receipt.study, ACTOR, "request").instances == 2


def test_retention_takes_what_is_older_and_has_no_work_left(rooms: Rooms) -> None:
    old, recent = receive(rooms, image(1, "1.2.100")), None
    rooms.now += 10 * 86_400
    recent = receive(rooms, image(2, "1.2.200"))
    purge = Purge(rooms.stores)
    assert purge.expired(5) == ([], [old.study])  # it waits for its analysis
    for kind, destination in ((JobKind.ANALYSE, ""), (JobKind.FORWARD, "pacs")):
        for lease in rooms.queue.lease(kind, "t", 60, 9, destination):
            with transaction(rooms.engine) as tx:
                rooms.queue.finish(tx, lease)
    assert purge.expired(5) == ([old.study], [])
    assert purge.expired(20) == ([], [])
    rooms.now += 10 * 86_400
    assert purge.expired(5) == ([old.study, recent.study], [])
    assert purge.studies_of(old.patient) == sorted([old.study, recent.study])


def test_room_is_given_back_by_the_next_purge_where_one_was_cut_short(rooms: Rooms) -> None:
    fill(rooms, "1.2.100", 1)
    Purge(rooms.stores).study(rooms.pseudonyms.study("1.2.100"), ACTOR, "request")
    assert not rooms.holds_nothing()
    assert Purge(rooms.stores).reclaim() == 5
    assert rooms.holds_nothing()


def test_disk_that_fails_leaves_the_object_doomed(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = receive(rooms, image(1, "1.2.100"))
    purge = Purge(rooms.stores)
    purge.study(receipt.study, ACTOR, "request")
    with monkeypatch.context() as patch:
        patch.setattr("radnode.storage.segments._punch", lambda *_: (_ for _ in ()).throw(OSError(5, "broken")))
        with pytest.raises(StoreUnavailable):
            purge.reclaim()
    assert rooms.count("doomed_objects") == 1
    assert purge.reclaim() == 1


def test_answered_commitments_are_forgotten_after_their_time_and_others_are_not(rooms: Rooms) -> None:
    with rooms.engine.begin() as tx:
        for number, (object_id, received) in enumerate([(None, 1.0), (b"o" * 16, 1.0), (None, rooms.now)]):
            tx.exec_driver_sql(
                "INSERT INTO commitments VALUES (?, 'CT1', 'c', ?, ?)", (f"{number:032x}", object_id, received)
            )
    assert Purge(rooms.stores).forget_commitments(1) == 1
    assert rooms.count("commitments") == 2


def test_two_purges_do_not_meet(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(RadnodeError, match="is running"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
