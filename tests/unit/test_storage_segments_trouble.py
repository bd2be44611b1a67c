"""The object store where the disk or the folder fails: nothing by half, and it recovers by itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rooms import Rooms
from support.segments import (
    damage,
    extents,
    fail_at,
    forget,
    get,
    half_written,
    nothing_named,
    overwrite,
    put,
    sealed,
    segments,
)

from radnode.errors import NotFoundError, SealBroken, StoreUnavailable
from radnode.storage import segments as module
from radnode.storage.sealing import Kind
from radnode.storage.segments import SegmentStore

MISSING = bytes(16)
MEGABYTE = 1 << 20


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(objects: Path) -> SegmentStore:
    return SegmentStore(objects)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    if os.geteuid():
        pytest.skip("only root can mount one")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


FAILURES = [
    *[("open", number) for number in (1, 2, 3)],
    *[("fsync", number) for number in (1, 2)],
    *[("pwrite", number) for number in (1, 2, 3, 4)],
    ("fdatasync", 1),
    ("fstat", 1),
    ("stat", 1),
]


@pytest.mark.parametrize(("call", "number"), FAILURES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_disk_is_store_unavailable_leaves_nothing_and_the_store_recovers(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: int
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, call, number, code)
        with pytest.raises(StoreUnavailable, match=os.strerror(code)):
            put(store, bytes(3 * MEGABYTE), MEGABYTE)
    assert segments(objects) == []
    object_id = put(store, b"x")
    assert get(store, object_id) == b"x"


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_segment_that_failed_keeps_its_objects_and_takes_no_further_one(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = put(store, b"before")
    with monkeypatch.context() as patch:
        fail_at(patch, call, 1, errno.EIO)
        with pytest.raises(StoreUnavailable):
            put(store, bytes(MEGABYTE), MEGABYTE)
    assert half_written(objects) == 0
    after = put(store, b"after")
    assert after[:12] != before[:12]
    assert (get(store, before), get(store, after)) == (b"before", b"after")


def test_what_could_not_be_cut_off_after_an_error_is_cut_off_when_the_segment_is_closed(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETIRED", 0)
    kept = put(store, b"before")
    with monkeypatch.context() as patch:
        fail_at(patch, "fdatasync", 1, errno.EIO)
        fail_at(patch, "ftruncate", 1, errno.EIO)
        with pytest.raises(StoreUnavailable):
            put(store, b"lost")
    assert [path.suffix for path in segments(objects)] == [".seg"]
    assert set(extents(objects)) == {kept}


def test_real_full_disk_is_store_unavailable_and_the_store_recovers(small_disk: Path) -> None:
    store = SegmentStore(small_disk / "objects")
    kept = [put(store, bytes([number]) * MEGABYTE, MEGABYTE) for number in range(2)]
    for _ in range(5):
        with pytest.raises(StoreUnavailable, match="No space left"):
            put(store, bytes(3 * MEGABYTE), MEGABYTE)
        assert half_written(small_disk / "objects") == 0
    kept.append(put(store, b"\2" * MEGABYTE, MEGABYTE))
    assert [get(store, object_id)[:1] for object_id in kept] == [b"\0", b"\1", b"\2"]
    with pytest.raises(StoreUnavailable, match="No space left"):
        put(store, bytes(MEGABYTE), MEGABYTE)
    store.delete(kept[0])
    assert len(get(store, put(store, bytes(MEGABYTE), MEGABYTE))) == MEGABYTE
    forget(store)
    assert SegmentStore(small_disk / "objects").sweep(nothing_named) >= 1
    assert segments(small_disk / "objects") == []


def test_folder_that_was_taken_away_is_noticed_before_anything_is_promised(store: SegmentStore, objects: Path) -> None:
    kept = put(store, b"x")
    objects.rename(objects.with_name("gone"))
    with pytest.raises(StoreUnavailable):
        put(store, b"y")
    shutil.copytree(objects.with_name("gone"), objects)  # as a restored backup: the same names, other files
    assert get(store, put(store, b"y")) == b"y"
    assert get(store, kept) == b"x"


def test_segment_that_was_replaced_by_a_copy_takes_no_further_object(store: SegmentStore, objects: Path) -> None:
    put(store, b"x")
    objects.rename(objects.with_name("gone"))
    shutil.copytree(objects.with_name("gone"), objects)
    with pytest.raises(StoreUnavailable, match="Stale"):
        put(store, b"y")
    assert get(store, put(store, b"y")) == b"y"


def test_missing_object_and_failing_disk_are_told_apart(store: SegmentStore, objects: Path) -> None:
    for object_id in (MISSING, put(store, b"x")[:12] + b"\0\0\0\1"):
        with pytest.raises(NotFoundError, match="restore it"):
            get(store, object_id)
    (objects / f"{MISSING[:12].hex()}.seg").mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        get(store, MISSING)


def test_object_that_stands_in_the_place_of_another_does_not_open(rooms: Rooms) -> None:
    first, second = (rooms.vault.put("study", Kind.INSTANCE, text) for text in (b"one", b"two"))
    overwrite(rooms.objects_folder, first, sealed(rooms.objects_folder, second))
    with pytest.raises(SealBroken, match="name of another"):
        rooms.vault.get(first)
    assert rooms.vault.get(second) == b"two"
    damage(rooms.objects_folder, second)
    with pytest.raises(SealBroken):
        rooms.vault.get(second)


def test_object_whose_segment_was_cut_off_does_not_open(rooms: Rooms) -> None:
    object_id = rooms.vault.put("study", Kind.INSTANCE, bytes(100_000))
    (path,) = segments(rooms.objects_folder)
    for size in (50_000, 100):
        os.truncate(path, size)
        with pytest.raises(SealBroken):
            rooms.vault.get(object_id)
    os.truncate(path, 10)
    with pytest.raises(NotFoundError):
        rooms.vault.get(object_id)
