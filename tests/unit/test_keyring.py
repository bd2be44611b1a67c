"""Rotation wraps every study key anew and loses none, whatever interrupts it; a retired key opens nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from support.rooms import Rooms

from radnode import keyring
from radnode.audit.events import Actor
from radnode.errors import KeyUnavailable, NotFoundError, RadnodeError, SealBroken
from radnode.keyring import Keyring, KeyRow, Rotation
from radnode.storage import keys
from radnode.storage.keys import StudyKeys, study_keys
from radnode.storage.local_keys import FileKeys
from radnode.storage.sealing import Kind
from radnode.storage.vault import Vault

ACTOR = Actor(user="tester")


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def provider(rooms: Rooms) -> FileKeys:
    return FileKeys(rooms.folder / "keys")


def ring(rooms: Rooms) -> Keyring:
    return Keyring(rooms.stores, provider(rooms), StudyKeys(rooms.engine, provider(rooms)))


def opened(rooms: Rooms, objects: dict[bytes, bytes]) -> bool:
    """Whether every object opens for a process that has nothing in memory."""
    vault = Vault(StudyKeys(rooms.engine, provider(rooms)), rooms.objects)
    return all(vault.get(object_id) == content for object_id, content in objects.items())


def filled(rooms: Rooms, count: int) -> dict[bytes, bytes]:
    contents = [b"%d" % number for number in range(count)]
    return {rooms.vault.put(f"study-{content.decode()}", Kind.INSTANCE, content): content for content in contents}


def test_rotation_wraps_every_study_key_anew_and_the_old_key_opens_nothing_more(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "BATCH", 3)
    objects = filled(rooms, 7)
    assert ring(rooms).listing() == [KeyRow("kek-0001", "current", 7)]
    assert ring(rooms).rotate(ACTOR) == Rotation("kek-0002", True, 7)
    assert ring(rooms).listing() == [KeyRow("kek-0001", "unused", 0), KeyRow("kek-0002", "current", 7)]
    assert opened(rooms, objects)
    old = (rooms.folder / "keys" / "kek-0001.key").read_bytes()
    assert ring(rooms).retire("kek-0001", ACTOR)
    assert not (rooms.folder / "keys" / "kek-0001.key").exists()
    assert opened(rooms, objects)
    # The thief of the database has the old key: nothing is wrapped under it, in the database or its log.
    (rooms.folder / "keys" / "kek-0002.key").write_bytes(old)
    with pytest.raises(SealBroken):
        opened(rooms, objects)
    changes = [entry["detail"] for entry in rooms.entries() if entry["event"] == "110113 key_changed"]
    assert changes == [
        {"change": "rotated", "key": "kek-0002"},
        {"change": "rewrapped", "count": 7, "key": "kek-0002"},
        {"change": "retired", "key": "kek-0001"},
    ]


def test_old_wrapping_is_in_no_file_of_the_database_after_a_rotation(rooms: Rooms) -> None:
    filled(rooms, 3)
    with rooms.engine.connect() as connection:
        before = [row.wrapped for row in connection.execute(study_keys.select())]
    ring(rooms).rotate(ACTOR)
    rooms.engine.dispose()
    on_disk = b"".join(path.read_bytes() for path in rooms.folder.glob("node.db*"))
    assert not any(wrapped in on_disk for wrapped in before)


def test_copy_of_the_database_from_before_dies_with_the_retired_key(rooms: Rooms, tmp_path: Path) -> None:
    objects = filled(rooms, 2)
    rooms.engine.dispose()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(rooms.folder / "node.db", copy)
    shutil.copytree(rooms.objects_folder, copy / "objects")
    ring(rooms).rotate(ACTOR)
    ring(rooms).retire("kek-0001", ACTOR)
    thief = Rooms(copy)
    shutil.rmtree(copy / "keys")
    shutil.copytree(rooms.folder / "keys", copy / "keys")
    for object_id in objects:
        with pytest.raises(KeyUnavailable):
            thief.vault.get(object_id)
    thief.close()
    assert opened(rooms, objects)


def test_rotation_that_was_cut_short_is_finished_and_makes_no_third_key(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = filled(rooms, 5)
    assert provider(rooms).create() == "kek-0002"
    assert StudyKeys(rooms.engine, provider(rooms)).rewrap("kek-0002", 2).wrapped == 2  # and here it died
    assert opened(rooms, objects)
    assert ring(rooms).rotate(ACTOR) == Rotation("kek-0002", False, 3)
    assert ring(rooms).rotate(ACTOR, always_new=True) == Rotation("kek-0003", True, 5)
    assert opened(rooms, objects)
    assert [row.state for row in ring(rooms).listing()] == ["unused", "unused", "current"]


def test_study_key_that_is_damaged_stays_and_keeps_no_other_from_being_wrapped_anew(rooms: Rooms) -> None:
    objects = filled(rooms, 3)
    with rooms.engine.begin() as connection:
        connection.execute(update(study_keys).where(study_keys.c.study == "study-1").values(wrapped=b"x" * 60))
    with pytest.raises(SealBroken, match="1 study keys do not open"):
        ring(rooms).rotate(ACTOR)
    assert opened(rooms, {key: value for key, value in objects.items() if value != b"1"})
    with pytest.raises(RadnodeError, match="1 study keys are wrapped under kek-0001"):
        ring(rooms).retire("kek-0001", ACTOR)


def test_key_is_not_retired_while_it_is_current_or_wraps_anything(rooms: Rooms) -> None:
    filled(rooms, 1)
    provider(rooms).create()
    for key, word in (("kek-0002", "current"), ("kek-0001", "1 study keys")):
        with pytest.raises(RadnodeError, match=word):
            ring(rooms).retire(key, ACTOR)
    with pytest.raises(NotFoundError):
        ring(rooms).retire("kek-0007", ACTOR)
    assert provider(rooms).keys() == ["kek-0001", "kek-0002"]


def test_nothing_is_wrapped_under_a_key_that_was_retired_while_it_was_being_wrapped(rooms: Rooms) -> None:
    class Slow(FileKeys):
        def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
            wrapped = super().wrap(key, context)
            if len(self.keys()) == 1:
                self.create()
                ring(rooms).retire("kek-0001", ACTOR)
            return wrapped

    slow = StudyKeys(rooms.engine, Slow(rooms.folder / "keys"))
    with pytest.raises(KeyUnavailable, match="retired at this moment"):
        slow.of_study("a")
    assert rooms.count("study_keys") == 0
    assert slow.of_study("a") == StudyKeys(rooms.engine, provider(rooms)).of_study("a")


def test_retirement_that_was_cut_short_is_finished(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    provider(rooms).create()
    with monkeypatch.context() as patch:
        patch.setattr(FileKeys, "destroy", lambda *_: (_ for _ in ()).throw(KeyUnavailable("down")))
        with pytest.raises(KeyUnavailable):
            ring(rooms).retire("kek-0001", ACTOR)
    assert ring(rooms).listing()[0] == KeyRow("kek-0001", "retired", 0)
    assert ring(rooms).retire("kek-0001", ACTOR)
    assert provider(rooms).keys() == ["kek-0002"]


def test_study_key_stays_open_for_its_time_and_then_the_provider_is_asked_again(rooms: Rooms) -> None:
    patient = StudyKeys(rooms.engine, provider(rooms), cache_seconds=60)
    hasty = StudyKeys(rooms.engine, provider(rooms), cache_seconds=0.0)
    key = patient.of_study("a")
    assert hasty.of_study("a") == key
    (rooms.folder / "keys").rename(rooms.folder / "away")
    assert patient.of_study("a") == key == patient.of_id(key.key_id)
    with pytest.raises(KeyUnavailable):
        hasty.of_study("a")
    with pytest.raises(KeyUnavailable):
        patient.of_study("b")
    (rooms.folder / "away").rename(rooms.folder / "keys")
    assert hasty.of_id(key.key_id) == key


def test_what_has_had_its_time_is_not_kept_in_memory(rooms: Rooms) -> None:
    hasty = StudyKeys(rooms.engine, provider(rooms), cache_seconds=0.0)
    for number in range(5):
        hasty.of_study(str(number))
    assert len(hasty._by_study) == len(hasty._by_id) == 1 < keys.CACHED_STUDIES
