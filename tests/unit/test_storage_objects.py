"""The object store: durable under its name or not there at all, whatever the disk does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from radnode.storage.objects import FileObjectStore
from support.rooms import Rooms, modes

from radnode.errors import NotFoundError, SealBroken, StoreUnavailable
from radnode.storage import objects
from radnode.storage.sealing import Kind

OBJECT = bytes.fromhex("abcdef") + bytes(13)


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int = errno.ENOSPC) -> None:
    """Let the nth call of an os function fail."""
    real: Callable[..., Any] = getattr(os, name)
    calls = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(objects.os, name, failing)


def put(store: FileObjectStore, object_id: bytes, sealed: bytes) -> None:
    writer = store.create(object_id)
    writer.write(memoryview(sealed))
    writer.commit()


def get(store: FileObjectStore, object_id: bytes) -> bytes:
    with store.reading(object_id) as file:
        return file.readall()


def test_file_is_renamed_then_synced_then_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "fdatasync", "write")}
    rename = Path.rename

    def synced(name: str) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            steps.append(f"{name} {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
            real[name](descriptor)

        return sync

    def write(descriptor: int, data: memoryview) -> int:
        steps.append("write")
        return int(real["write"](descriptor, data[:100]))  # short writes are allowed

    def renamed(path: Path, target: Path) -> Path:
        steps.append(f"rename {path.name}")
        return rename(path, target)

    monkeypatch.setattr(objects.os, "fsync", synced("fsync"))
    monkeypatch.setattr(objects.os, "fdatasync", synced("fdatasync"))
    monkeypatch.setattr(objects.os, "write", write)
    monkeypatch.setattr(Path, "rename", renamed)
    put(FileObjectStore(tmp_path / "objects"), OBJECT, bytes(150))
    name = OBJECT.hex()
    folders = [f"fsync {tmp_path.name}", "fsync objects", "fsync ab"]
    written = ["write", "write", f"rename {name}.{os.getpid()}.tmp", f"fdatasync {name}.sealed", "fsync cd"]
    assert steps == folders + written
    assert (tmp_path / "objects/ab/cd" / f"{name}.sealed").read_bytes() == bytes(150)


def test_object_has_a_temporary_name_until_it_is_whole(tmp_path: Path) -> None:
    writer = FileObjectStore(tmp_path).create(OBJECT)
    writer.write(memoryview(b"half"))
    assert [path.suffix for path in (tmp_path / "ab/cd").iterdir()] == [".tmp"]
    writer.abort()
    writer.abort()
    assert list((tmp_path / "ab/cd").iterdir()) == []


def test_one_folder_is_filled_before_the_next_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FOLDER_OBJECTS", 50)
    store = FileObjectStore(tmp_path)
    ids = [store.new_id() for _ in range(150)]
    assert [len({found[:2] for found in ids[start : start + 50]}) for start in (0, 50, 100)] == [1, 1, 1]
    assert len(set(ids)) == 150
    assert FileObjectStore(tmp_path).new_id()[:2] != ids[-1][:2]  # one process, one folder (but for 1 of 65,536 times)


def test_folder_made_by_another_process_is_synced_before_it_is_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(FileObjectStore(tmp_path), OBJECT, b"x")
    synced: list[str] = []
    monkeypatch.setattr(objects, "_sync_folder", lambda folder: synced.append(folder.name))
    put(FileObjectStore(tmp_path), bytes.fromhex("abcd") + bytes(14), b"y")
    assert {tmp_path.name, "ab", "cd"} <= set(synced)


def test_files_are_0600_and_folders_0700_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        put(FileObjectStore(tmp_path / "objects"), OBJECT, b"x")
    finally:
        os.umask(before)
    found = list((tmp_path / "objects").rglob("*"))
    assert modes(path for path in found if path.is_file()) == {0o600}
    assert modes([tmp_path / "objects", *(path for path in found if path.is_dir())]) == {0o700}


@pytest.mark.parametrize(
    ("call", "number"), [("write", 1), ("fsync", 1), ("fsync", 4), ("fdatasync", 1), ("open", 4), ("open", 5)]
)
def test_full_disk_is_store_unavailable_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = FileObjectStore(tmp_path / "objects")
    with monkeypatch.context() as patch:
        fail_at(patch, call, number)
        with pytest.raises(StoreUnavailable, match="No space left"):
            put(store, OBJECT, b"x")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    put(store, OBJECT, b"x")  # and it recovers by itself
    assert get(store, OBJECT) == b"x"


def test_store_recovers_when_its_folder_was_taken_away_and_put_back(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects")
    put(store, OBJECT, b"x")
    (tmp_path / "objects").rename(tmp_path / "gone")
    with pytest.raises(StoreUnavailable):
        put(store, OBJECT[:-1] + b"\1", b"y")
    put(store, OBJECT[:-1] + b"\1", b"y")
    assert get(store, OBJECT[:-1] + b"\1") == b"y"


def test_missing_object_and_failing_disk_are_told_apart(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path)
    with pytest.raises(NotFoundError):
        get(store, OBJECT)
    (tmp_path / "ab" / "cd" / f"{OBJECT.hex()}.sealed").mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        get(store, OBJECT)


def test_delete_of_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    FileObjectStore(tmp_path).delete(OBJECT)


def test_leftovers_are_half_written_files_alone_and_sweep_removes_them(rooms: Rooms) -> None:
    kept = rooms.vault.put("study", Kind.INSTANCE, b"x")
    leftover = rooms.folder / "objects/ab/cd" / "abcd.tmp"
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.write_bytes(b"half")
    assert rooms.objects.leftovers() == [leftover]
    assert rooms.vault.sweep() == 1
    assert not leftover.exists()
    assert rooms.vault.get(kept) == b"x"


def test_object_that_stands_under_the_name_of_another_does_not_open(rooms: Rooms) -> None:
    first, second = (rooms.vault.put("study", Kind.INSTANCE, text) for text in (b"one", b"two"))
    one, two = (rooms.folder / "objects" / i[:2] / i[2:4] / f"{i}.sealed" for i in (first.hex(), second.hex()))
    one.write_bytes(two.read_bytes())
    with pytest.raises(SealBroken, match="name of another"):
        rooms.vault.get(first)
    assert rooms.vault.get(second) == b"two"
