"""Study keys: one a study whoever asks first, closed without the key-encryption key, gone when destroyed."""

from __future__ import annotations

import multiprocessing
import sqlite3
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update
from support.rooms import Rooms, database

from radnode.errors import KeyUnavailable, SealBroken, StoreUnavailable
from radnode.jobs import database as database_module
from radnode.storage import keys
from radnode.storage.keys import StudyKeys, read_key, study_keys
from radnode.storage.local_keys import FileKeys
from radnode.storage.pseudonyms import Pseudonyms
from radnode.storage.sealing import Kind


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def another(rooms: Rooms) -> StudyKeys:
    """The study keys as another process sees them: nothing in memory."""
    return StudyKeys(rooms.engine, FileKeys(rooms.folder / "keys"))


def test_wrapped_key_opens_under_its_own_kek_and_context_alone(tmp_path: Path) -> None:
    (tmp_path / "kek-0001.key").write_text("11" * 32)
    provider = FileKeys(tmp_path)
    kek, wrapped = provider.wrap(b"s" * 32, b"context")
    assert kek == "kek-0001"
    assert b"s" * 8 not in wrapped
    assert provider.unwrap(kek, wrapped, b"context") == b"s" * 32
    for broken in (wrapped[:-1], wrapped[:5], b"", bytes(len(wrapped))):
        with pytest.raises(SealBroken):
            provider.unwrap(kek, broken, b"context")
    with pytest.raises(SealBroken):
        provider.unwrap(kek, wrapped, b"another")
    (tmp_path / "kek-0001.key").write_text("22" * 32)
    with pytest.raises(SealBroken, match="kek-0001"):
        provider.unwrap(kek, wrapped, b"context")


def test_newest_kek_wraps_and_older_ones_still_open(tmp_path: Path) -> None:
    (tmp_path / "kek-0001.key").write_text("11" * 32)
    provider = FileKeys(tmp_path)
    old = provider.wrap(b"s" * 32, b"c")
    (tmp_path / "kek-0002.key").write_text("22" * 32)
    assert provider.wrap(b"s" * 32, b"c")[0] == "kek-0002"
    assert provider.unwrap(*old, b"c") == b"s" * 32


@pytest.mark.parametrize("content", ["", "zz", "11" * 31, "\u00e9" * 64])
def test_key_file_that_is_none_is_key_unavailable(tmp_path: Path, content: str) -> None:
    (tmp_path / "k").write_text(content)
    for path in (tmp_path / "k", tmp_path / "missing", tmp_path):
        with pytest.raises(KeyUnavailable, match="restore it"):
            read_key(path)


def test_provider_without_keys_stores_nothing(rooms: Rooms) -> None:
    (rooms.folder / "keys" / "kek-0001.key").unlink()
    with pytest.raises(KeyUnavailable):
        rooms.vault.put("study", Kind.INSTANCE, b"x")
    assert rooms.holds_nothing()
    assert rooms.count("study_keys") == 0


def test_study_has_one_key_for_every_process_and_other_studies_others(rooms: Rooms) -> None:
    first = rooms.keys.of_study("a")
    assert another(rooms).of_study("a") == first
    assert another(rooms).of_id(first.key_id) == first
    assert rooms.keys.of_study("b").secret != first.secret


def test_database_holds_no_key_in_the_clear(rooms: Rooms) -> None:
    secret = rooms.keys.of_study("a").secret
    rooms.close()
    assert not [path for path in rooms.folder.glob("node.db*") if secret in path.read_bytes()]


def _race(folder: str, barrier: Any, answers: Any) -> None:
    engine = database(Path(folder))
    mine = StudyKeys(engine, FileKeys(Path(folder) / "keys"))
    barrier.wait(30)
    answers.put([(name, mine.of_study(name).secret) for name in map(str, range(20))])
    engine.dispose()


def test_wrong_key_under_the_right_name_wraps_no_new_study_and_one_damaged_row_keeps_none_out(rooms: Rooms) -> None:
    for study in "ab":
        rooms.keys.of_study(study)
    key = rooms.folder / "keys" / "kek-0001.key"
    right = key.read_text()
    key.write_text("22" * 32)
    with pytest.raises(KeyUnavailable, match="kek-0001 is not the key that wrapped"):
        another(rooms).of_study("c")
    assert rooms.count("study_keys") == 2
    key.write_text(right)
    with rooms.engine.begin() as connection:
        connection.execute(update(study_keys).where(study_keys.c.study == "b").values(wrapped=b"damaged"))
    another(rooms).of_study("c")
    assert rooms.count("study_keys") == 3


def test_two_processes_that_race_for_a_study_get_the_same_key(rooms: Rooms) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_race, args=(str(rooms.folder), barrier, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = (answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(30)
    assert first == second
    assert rooms.count("study_keys") == 20


def test_destroyed_key_takes_its_objects_with_it(rooms: Rooms) -> None:
    kept, gone = rooms.vault.put("kept", Kind.INSTANCE, b"1"), rooms.vault.put("gone", Kind.INSTANCE, b"2")
    with rooms.engine.begin() as connection:
        connection.execute(delete(study_keys).where(study_keys.c.study == "gone"))
    fresh = Rooms(rooms.folder)
    assert fresh.vault.get(kept) == b"1"
    with pytest.raises(KeyUnavailable, match="purged"):
        fresh.vault.get(gone)
    fresh.close()


def test_key_that_is_destroyed_while_it_is_made_seals_nothing(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms.keys, "_load", lambda _study: None)
    with pytest.raises(KeyUnavailable):
        rooms.keys.of_study("a")


def test_check_finds_a_missing_kek_and_the_kek_of_another_node(rooms: Rooms) -> None:
    assert rooms.keys.check() == 0
    rooms.keys.of_study("a")
    assert rooms.keys.check() == 1
    path = rooms.folder / "keys" / "kek-0001.key"
    path.write_text("22" * 32)
    with pytest.raises(SealBroken):
        rooms.keys.check()
    path.unlink()
    with pytest.raises(KeyUnavailable):
        rooms.keys.check()


def test_memory_of_keys_is_bounded(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CACHED_STUDIES", 3)
    found = [rooms.keys.of_study(str(number)) for number in range(6)]
    assert len(rooms.keys._by_study) == len(rooms.keys._by_id) == 3
    assert [rooms.keys.of_study(str(number)) for number in range(6)] == found
    assert [rooms.keys.of_id(key.key_id) for key in found] == found


def test_locked_database_is_store_unavailable(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    rooms.engine.dispose()
    waiting = StudyKeys(database_module.open_database(rooms.folder / "node.db"), FileKeys(rooms.folder / "keys"))
    with sqlite3.connect(rooms.folder / "node.db") as lock:
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            waiting.of_study("a")
    lock.close()
    assert waiting.of_study("a")
    waiting._engine.dispose()


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_pseudonyms_are_stable_and_distinct(issuer: str, patient: str, issuer2: str, patient2: str) -> None:
    names = Pseudonyms(b"k" * 32)
    one, two = names.patient(issuer, patient), names.patient(issuer2, patient2)
    assert one == Pseudonyms(b"k" * 32).patient(issuer, patient) != Pseudonyms(b"K" * 32).patient(issuer, patient)
    normal = [tuple(keys_of(*pair)) for pair in ((issuer, patient), (issuer2, patient2))]
    assert (one == two) is (normal[0] == normal[1])
    assert len(one) == 32
    assert len({f(patient) for f in (names.study, names.series, names.instance)}) == 3


def keys_of(issuer: str, patient: str) -> Iterator[str]:
    return (unicodedata.normalize("NFC", value.strip(" \0")) for value in (issuer, patient))


def test_pseudonym_of_the_same_patient_survives_padding_and_composition() -> None:
    names = Pseudonyms(b"k" * 32)
    assert names.patient("", "M\u00fcller") == names.patient(" ", "Mu\u0308ller ")
    assert names.patient("a", "b") != names.patient("ab", "") != names.patient("", "ab")
