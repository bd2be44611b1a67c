"""Intake: what is promised is kept byte for byte, and what fails leaves nothing."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from support import films
from support.recorder import Recorder
from support.rooms import PEER, Rooms, encoded, modes, request_for, small

from radnode import intake
from radnode.arrivals import Arrival, Arrivals
from radnode.audit.events import Actor
from radnode.errors import (
    AuditError,
    ContextMismatch,
    DuplicateInstance,
    IdentityMismatch,
    InvalidUID,
    KeyUnavailable,
    MalformedDataSet,
    ObjectTooLarge,
    RadnodeError,
    StoreUnavailable,
)
from radnode.jobs import database as database_module
from radnode.jobs.database import reading
from radnode.jobs.index import find_instance
from radnode.model import JobKind, JobState, Priority, StoreRequest
from radnode.part10 import read_file_meta
from radnode.pressure import Pressure
from radnode.settings import QueueSettings, RuleSettings, StorageSettings
from radnode.storage import extents


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rooms]:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.2)
    found = Rooms(tmp_path)
    yield found
    found.close()


def receive(rooms: Rooms, number: int = 1, **elements: object) -> Any:
    dataset = small(number, **elements)
    return rooms.intake.receive(request_for(dataset), encoded(dataset))


def nothing_is_kept(rooms: Rooms) -> bool:
    tables = [rooms.count(name) for name in ("instances", "jobs", "audit_entries")]
    return tables == [0, 0, 0] and rooms.holds_nothing() and rooms.rung == []


def stored(rooms: Rooms, instance: str) -> bytes:
    with reading(rooms.engine) as tx:
        row = find_instance(tx, instance)
    assert row is not None
    return rooms.vault.get(row.object_id)


@pytest.mark.parametrize("path", [films.CT[0], films.OPACITY], ids=["ct", "dx"])
def test_bytes_are_kept_exactly_behind_a_preamble_of_zeros(rooms: Rooms, path: Path) -> None:
    dataset = films.fresh(path)
    part10 = films.file_bytes(dataset)
    meta = read_file_meta(part10)
    request = StoreRequest(
        PEER, meta.sop_class_uid, meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid
    )
    receipt = rooms.intake.receive(request, memoryview(part10)[meta.offset :])
    kept = stored(rooms, receipt.instance)
    assert kept[:132] == bytes(128) + b"DICM"
    assert kept[read_file_meta(kept).offset :] == part10[meta.offset :]
    read = pydicom.dcmread(io.BytesIO(kept))
    assert read.file_meta.TransferSyntaxUID == meta.transfer_syntax_uid
    assert read.file_meta.SourceApplicationEntityTitle == "MODALITY1"
    assert (read.pixel_array == dataset.pixel_array).all()


def test_instance_job_and_audit_entry_are_one_commit_and_the_worker_is_woken(rooms: Rooms) -> None:
    receipt = receive(rooms)
    assert [rooms.count(name) for name in ("instances", "jobs", "audit_entries")] == [1, 1, 1]
    (entry,) = rooms.entries()
    assert (entry["event"], entry["action"], entry["detail"]["status"]) == ("110104 image_received", "C", "0000")
    assert (entry["patient"], entry["instance"]) == (receipt.patient, receipt.instance)
    assert rooms.rung == ["worker"]
    assert not receipt.known


def test_nothing_on_disk_names_the_patient(rooms: Rooms) -> None:
    receive(rooms, AccessionNumber="ACC-4711")
    rooms.close()
    files = [path for path in rooms.folder.rglob("*") if path.is_file()]
    for word in ("SECRET-1", "Secret", "ACC-4711", "1.2.3.1"):
        for raw in (word.encode(), word.encode("utf-16-le")):
            assert not [path.name for path in files if raw in path.read_bytes()]
    assert modes(rooms.objects_folder.iterdir()) == {0o600}


def test_same_bytes_again_are_promised_without_a_second_job(rooms: Rooms) -> None:
    first, second = receive(rooms), receive(rooms)
    assert second.known
    assert second.instance == first.instance
    assert [rooms.count(name) for name in ("instances", "jobs", "audit_entries")] == [1, 1, 2]
    assert rooms.entries()[1]["action"] == "R"
    assert len(rooms.kept_objects()) == 1


def test_other_bytes_under_a_known_uid_are_refused_audited_and_change_nothing(rooms: Rooms) -> None:
    receipt = receive(rooms)
    before = stored(rooms, receipt.instance)
    with pytest.raises(DuplicateInstance) as caught:
        receive(rooms, PatientID="SOMEBODY-ELSE")
    assert caught.value.status == 0x0111
    assert stored(rooms, receipt.instance) == before
    assert (rooms.entries()[1]["action"], rooms.entries()[1]["detail"]["status"]) == ("U", "0111")
    assert len(rooms.kept_objects()) == rooms.count("jobs") == 1


def test_same_data_set_in_another_transfer_syntax_is_other_bytes(rooms: Rooms) -> None:
    receive(rooms)
    dataset = small()
    with pytest.raises(DuplicateInstance):
        rooms.intake.receive(request_for(dataset, ImplicitVRLittleEndian), encoded(dataset, ImplicitVRLittleEndian))


def test_two_associations_with_the_same_instance_at_once_make_one_job(rooms: Rooms) -> None:
    barrier = threading.Barrier(8)
    answers: list[Any] = []

    def send() -> None:
        barrier.wait()
        try:
            answers.append(receive(rooms).known)
        except RadnodeError as error:
            answers.append(error)

    database_module_threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in database_module_threads:
        thread.start()
    for thread in database_module_threads:
        thread.join()
    assert sorted(answers, key=str) == [False] + [True] * 7
    assert [rooms.count(name) for name in ("instances", "jobs", "study_keys")] == [1, 1, 1]
    assert len(rooms.kept_objects()) == 1


def test_what_cannot_be_audited_is_not_kept(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise AuditError("The audit entry could not be written.")

    with monkeypatch.context() as patch:
        patch.setattr(rooms.audit, "append", broken)
        with pytest.raises(AuditError) as caught:
            receive(rooms)
        assert caught.value.status == 0x0110
        assert nothing_is_kept(rooms)
    assert not receive(rooms).known


def test_database_locked_is_out_of_resources_and_leaves_no_orphan(rooms: Rooms) -> None:
    rooms.keys.of_study(rooms.pseudonyms.study("1.2.3"))
    lock = sqlite3.connect(rooms.folder / "node.db")
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as caught:
        receive(rooms)
    assert caught.value.status == 0xA700
    assert nothing_is_kept(rooms)
    lock.close()
    assert not receive(rooms).known


def test_commit_whose_outcome_is_unknown_keeps_what_the_index_names(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happened and its answer was lost: then the object must stay."""
    commit = Arrivals.commit

    def lost(self: Arrivals, arrival: Arrival) -> bool:
        commit(self, arrival)
        raise StoreUnavailable("lost")

    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "commit", lost)
        with pytest.raises(StoreUnavailable):
            receive(rooms)
    receipt = receive(rooms)
    assert receipt.known
    assert stored(rooms, receipt.instance)


def test_object_of_a_commit_about_which_nobody_can_be_asked_is_left_to_the_sweep(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise StoreUnavailable("The database cannot be read now.")

    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "commit", unreadable)
        patch.setattr(intake, "find_instance", unreadable)
        with pytest.raises(StoreUnavailable):
            receive(rooms)
    [left] = rooms.kept_objects()
    assert rooms.vault._objects._left == {left[:12]}
    assert not receive(rooms).known


def test_full_disk_is_out_of_resources_and_leaves_nothing(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(extents.os, "pwrite", full)
        with pytest.raises(StoreUnavailable) as caught:
            receive(rooms)
    assert caught.value.status == 0xA700
    assert nothing_is_kept(rooms)


def test_key_provider_down_is_out_of_resources_and_nothing_is_in_the_clear(rooms: Rooms) -> None:
    (rooms.folder / "keys/kek-0001.key").rename(rooms.folder / "keys/away")
    with pytest.raises(KeyUnavailable) as caught:
        receive(rooms)
    assert caught.value.status == 0xA700
    assert nothing_is_kept(rooms)


@pytest.mark.parametrize(
    ("change", "error", "status"),
    [
        ({"context_sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, ContextMismatch, 0x0122),
        ({"sop_instance_uid": "../../x"}, InvalidUID, 0x0117),
        ({"sop_instance_uid": "1.2.3.99"}, IdentityMismatch, 0xA900),
        ({"sop_class_uid": "1.2", "context_sop_class_uid": "1.2"}, IdentityMismatch, 0xA900),
    ],
)
def test_command_that_disagrees_has_its_status(
    rooms: Rooms, change: dict[str, str], error: type[RadnodeError], status: int
) -> None:
    dataset = small()
    good = request_for(dataset)
    values = {name: getattr(good, name) for name in StoreRequest.__dataclass_fields__} | change
    with pytest.raises(error) as caught:
        rooms.intake.receive(StoreRequest(**values), encoded(dataset))
    assert caught.value.status == status
    assert nothing_is_kept(rooms)


def test_junk_and_too_large_objects_have_their_status(rooms: Rooms) -> None:
    request = request_for(small())
    with pytest.raises(MalformedDataSet) as malformed:
        rooms.intake.receive(request, b"junk" * 10)
    with pytest.raises(ObjectTooLarge) as large:
        receive(rooms, TextValue="x" * (1 << 24))
    assert (malformed.value.status, large.value.status) == (0xC000, 0xA700)
    assert nothing_is_kept(rooms)


@pytest.mark.parametrize("uid", ["1.02.3", "0.0.00", "9" * 64])
def test_uid_with_leading_zeros_as_devices_send_it_is_kept(rooms: Rooms, uid: str) -> None:
    data = encoded(small(SOPInstanceUID="1.2.3.4.5")).replace(
        b"\x08\x00\x18\x00UI\x0a\x001.2.3.4.5\0",
        b"\x08\x00\x18\x00UI" + (len(uid) + len(uid) % 2).to_bytes(2, "little") + uid.encode() + b"\0" * (len(uid) % 2),
    )
    request = request_for(small())
    values = {name: getattr(request, name) for name in StoreRequest.__dataclass_fields__} | {"sop_instance_uid": uid}
    receipt = rooms.intake.receive(StoreRequest(**values), data)
    assert read_file_meta(stored(rooms, receipt.instance)).sop_instance_uid == uid


def test_instance_of_the_python_interface_makes_no_job(rooms: Rooms) -> None:
    dataset = small()
    rooms.intake.receive(request_for(dataset), encoded(dataset), enqueue=False)
    assert (rooms.count("instances"), rooms.count("jobs")) == (1, 0)
    assert rooms.rung == []


def test_rules_give_forwards_and_priority_in_the_commit_of_the_image(tmp_path: Path) -> None:
    rules = [
        RuleSettings(match={"StudyDescription": "re:.*STAT"}, priority="stat", forward=("pacs", "archive")),
        RuleSettings(match={"CallingAE": "MODALITY1"}, detect=("any",), forward=("pacs",)),
        RuleSettings(match={"CallingAE": "ANOTHER"}, forward=("never",)),
    ]
    rooms = Rooms(tmp_path, rules=rules)
    urgent = receive(rooms, 1, StudyDescription="CT STAT").instance
    assert rooms.rung == ["worker", "deliver"]
    routine = receive(rooms, 2).instance
    found = [(job.kind, job.subject, job.destination, job.priority) for job in rooms.queue.listing(list(JobState))]
    assert sorted(found) == sorted(
        [
            (JobKind.ANALYSE, urgent, "", Priority.STAT),
            (JobKind.FORWARD, urgent, "pacs", Priority.STAT),
            (JobKind.FORWARD, urgent, "archive", Priority.STAT),
            (JobKind.ANALYSE, routine, "", Priority.ROUTINE),
            (JobKind.FORWARD, routine, "pacs", Priority.ROUTINE),
        ]
    )
    rooms.close()


def test_same_image_again_is_forwarded_once(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, rules=[RuleSettings(detect=("any",), forward=("pacs",))])
    receive(rooms)
    assert receive(rooms).known
    assert [job.kind for job in rooms.queue.listing(list(JobState))] == [JobKind.ANALYSE, JobKind.FORWARD]
    rooms.close()


def test_image_that_no_detector_wants_makes_no_analysis_and_fills_no_queue(tmp_path: Path) -> None:
    rules = [
        RuleSettings(forward=("archive",)),
        RuleSettings(match={"Modality": "CR"}, detect=("cxr",)),
    ]
    rooms = Rooms(tmp_path, rules=rules)
    for number in range(1, 6):
        receive(rooms, number)
    assert [job.kind for job in rooms.queue.listing(list(JobState))] == [JobKind.FORWARD] * 5
    assert rooms.rung == ["deliver"] * 5
    settings = QueueSettings(max_waiting=2), StorageSettings(low_disk_percent=0)
    pressure = Pressure(rooms.stores, tmp_path, *settings, Actor(user="t"), Recorder())
    pressure.look()
    pressure.check()  # NodeFull when analyses had piled up
    receive(rooms, 6, Modality="CR")
    assert rooms.queue.counts()[JobKind.ANALYSE, JobState.READY] == 1
    rooms.close()
