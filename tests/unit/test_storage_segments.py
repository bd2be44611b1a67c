"""The object store: durable under its id or not there at all, and no room lost, whatever the disk does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rooms import Rooms, modes
from support.segments import (
    BLOCK,
    damage,
    extents,
    forget,
    get,
    half_written,
    object_bytes,
    overwrite,
    put,
    sealed,
    segments,
    stored_bytes,
)

from radnode.errors import NotFoundError, SealBroken, StoreUnavailable
from radnode.storage import segments as module
from radnode.storage.extents import STAGING_BYTES
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


def nothing_named(_: bytes) -> list[bytes]:
    return []


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

    monkeypatch.setattr(module.os, name, failing)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write down what is written and synced from now on, with the file's name or its suffix."""
    steps: list[str] = []

    def record(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(descriptor: int, *arguments: Any) -> Any:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            sizes = [f"{len(argument)}" for argument in arguments if isinstance(argument, memoryview)]
            steps.append(" ".join([name, path.suffix or path.name, *sizes]))
            return real(descriptor, *arguments)

        monkeypatch.setattr(module.os, name, call)

    for name in ("fsync", "fdatasync", "pwrite"):
        record(name)
    return steps


def test_segment_is_durable_in_its_folder_and_an_object_is_one_write_and_one_sync(
    store: SegmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded(monkeypatch)
    put(store, bytes(100))
    assert steps == [f"fsync {tmp_path.name}", "fsync objects", f"pwrite .open {BLOCK}", "fdatasync .open"]
    steps.clear()
    put(store, bytes(MEGABYTE), 1 << 19)
    assert steps == [f"pwrite .open {MEGABYTE + BLOCK}", "fdatasync .open"]


def test_length_of_an_object_of_several_writes_is_written_last_before_the_sync(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded(monkeypatch)
    writer = store.create(MEGABYTE)
    for _ in range(3):
        writer.room(MEGABYTE)[:] = b"x" * MEGABYTE
        writer.advance(MEGABYTE)
    assert extents(objects) == {}
    assert half_written(objects) >= MEGABYTE
    writer.commit()
    assert steps[-2:] == [f"pwrite .open {BLOCK}", "fdatasync .open"]
    assert steps.count("fdatasync .open") == 1
    assert sealed(objects, writer.object_id) == get(store, writer.object_id) == b"x" * 3 * MEGABYTE


@pytest.mark.parametrize("size", [1, BLOCK - 17, BLOCK - 16, BLOCK - 15, STAGING_BYTES, 3 * STAGING_BYTES + 1])
@pytest.mark.parametrize("step", [999, BLOCK, 1 << 19, 1 << 20])
def test_object_of_any_size_comes_back_byte_for_byte(store: SegmentStore, objects: Path, size: int, step: int) -> None:
    content = (os.urandom(1009) * (size // 1009 + 1))[:size]
    put(store, b"before", step)
    object_id = put(store, content, step)
    put(store, b"after", step)
    assert get(store, object_id) == sealed(objects, object_id) == content
    assert len(segments(objects)) == 1
    assert half_written(objects) == 0


def test_objects_that_are_written_at_once_are_in_segments_of_their_own(store: SegmentStore, objects: Path) -> None:
    writers = [store.create(100) for _ in range(3)]
    for number, writer in enumerate(writers):
        writer.room(100)[:1] = bytes([number])
        writer.advance(1)
    for writer in reversed(writers):
        writer.commit()
    assert [get(store, writer.object_id) for writer in writers] == [b"\0", b"\1", b"\2"]
    assert len({writer.object_id[:12] for writer in writers}) == 3
    for _ in range(9):
        put(store, b"x")
    assert len(segments(objects)) == 3  # used again


def test_threads_keep_their_objects_apart(store: SegmentStore, objects: Path) -> None:
    kept: dict[bytes, bytes] = {}

    def work(number: int) -> None:
        for turn in range(20):
            content = bytes([number, turn]) * 30_000
            if turn % 3:
                kept[put(store, content, 7000)] = content
            else:
                writer = store.create(len(content))
                writer.room(len(content))
                writer.advance(len(content))
                writer.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 6 * 13
    assert {object_id: get(store, object_id) for object_id in kept} == kept
    assert set(extents(objects)) == set(kept)


def test_room_of_an_aborted_object_is_taken_by_the_next(store: SegmentStore, objects: Path) -> None:
    put(store, b"before")
    before = stored_bytes(objects)
    for size in (1, STAGING_BYTES, 3 * STAGING_BYTES):
        writer = store.create(size)
        writer.room(size)
        writer.advance(size)
        writer.abort()
        writer.abort()
        assert stored_bytes(objects) == before
        with pytest.raises(NotFoundError):
            get(store, writer.object_id)
    assert put(store, b"after") == writer.object_id
    assert get(store, writer.object_id) == b"after"


def test_full_segment_takes_no_further_object(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 2 * BLOCK)
    ids = [put(store, bytes([number])) for number in range(2 * module._RETIRED + 6)]
    assert len({object_id[:12] for object_id in ids}) == len(ids) // 2
    assert [get(store, object_id) for object_id in ids] == [bytes([number]) for number in range(len(ids))]
    closed = {path.stem for path in segments(objects) if path.suffix == ".seg"}
    assert closed == {object_id[:12].hex() for object_id in ids[: -2 * module._RETIRED]}
    assert SegmentStore(objects).sweep(nothing_named) == 0  # the last ones may not have been named yet


def test_files_are_0600_and_the_folder_0700_under_any_umask(store: SegmentStore, objects: Path) -> None:
    before = os.umask(0)
    try:
        put(store, b"x")
    finally:
        os.umask(before)
    assert modes(objects.iterdir()) == {0o600}
    assert modes([objects]) == {0o700}


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


def test_object_that_is_left_to_the_sweep_is_swept_although_its_segment_was_full(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 2 * BLOCK)
    monkeypatch.setattr(module, "_RETIRED", 0)
    orphan = put(store, b"whether anybody names it cannot be told")
    store.leave(orphan)
    neighbour = put(store, b"neighbour")
    settled = [put(store, b"settled") for _ in range(2)]
    assert [path.suffix for path in segments(objects) if path.stem == orphan[:12].hex()] == [".open"]
    assert get(store, neighbour) == b"neighbour"
    assert SegmentStore(objects).sweep(lambda segment: [neighbour] if segment == neighbour[:12] else []) == 1
    assert set(extents(objects)) == {neighbour, *settled}
    assert {path.suffix for path in segments(objects)} == {".seg"}


def test_object_that_the_disk_does_not_let_go_is_left_to_the_sweep(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", BLOCK)
    monkeypatch.setattr(module, "_RETIRED", 1)

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    orphan = put(store, b"nobody's")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_punch", failing)
        store.delete(orphan)
    put(store, b"the next")
    assert SegmentStore(objects).sweep(nothing_named) == 1
    assert orphan not in extents(objects)


def test_blocks_are_filled_with_zeros_and_not_with_another_object(store: SegmentStore, objects: Path) -> None:
    for size in (BLOCK, 5):
        put(store, b"x" * size)
    (path,) = segments(objects)
    assert path.read_bytes()[2 * BLOCK + 16 :] == b"x" * 5 + bytes(BLOCK - 21)


def test_short_writes_are_carried_on(store: SegmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(module.os, "pwrite", lambda fd, data, position: real(fd, data[: 3 * BLOCK], position))
    content = os.urandom(2 * MEGABYTE)
    assert get(store, put(store, content, 1 << 19)) == content


def test_file_system_that_takes_no_direct_writes_gets_others(
    store: SegmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = os.pwrite, []

    def pwrite(descriptor: int, data: memoryview, position: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, data, position)

    monkeypatch.setattr(module.os, "pwrite", pwrite)
    assert get(store, put(store, b"one")) == b"one"
    assert get(store, put(store, b"two")) == b"two"
    assert len(refused) <= 1


def test_writes_go_past_the_page_cache_where_the_file_system_has_that(store: SegmentStore, objects: Path) -> None:
    put(store, b"x")
    (segment,) = store._idle
    with contextlib.suppress(OSError):
        os.close(os.open(objects / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
        assert fcntl.fcntl(segment.descriptor, fcntl.F_GETFL) & os.O_DIRECT


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


def test_delete_gives_the_room_back_and_spares_the_neighbours(store: SegmentStore, objects: Path) -> None:
    ids = [put(store, bytes([number]) * MEGABYTE, MEGABYTE) for number in range(4)]
    (path,) = segments(objects)
    before = path.stat()
    store.delete(ids[1])
    store.delete(ids[1])
    store.delete(MISSING)
    store.delete(ids[3][:12] + b"\xff\0\0\0")
    after = path.stat()
    assert (before.st_blocks - after.st_blocks) * 512 == MEGABYTE + BLOCK
    assert after.st_size == before.st_size
    with pytest.raises(NotFoundError):
        get(store, ids[1])
    assert [get(store, ids[number]) for number in (0, 2, 3)] == [bytes([n]) * MEGABYTE for n in (0, 2, 3)]


def test_deleted_object_is_gone_where_the_file_system_cannot_punch(
    store: SegmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [put(store, b"x") for _ in range(2)]
    monkeypatch.setattr(module, "_PUNCH_HOLE", 0x4000)  # a mode that none has: EOPNOTSUPP
    store.delete(ids[0])
    with pytest.raises(NotFoundError):
        get(store, ids[0])
    assert get(store, ids[1]) == b"x"


@pytest.mark.parametrize("kept", [(), (0,), (1,), (2,), (0, 2), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("tail", [0, 3 * MEGABYTE])
def test_sweep_gives_back_what_nobody_names_at_start_middle_and_end(
    store: SegmentStore, objects: Path, kept: tuple[int, ...], tail: int
) -> None:
    contents = [bytes([number + 1]) * 100_000 for number in range(3)]
    ids = [put(store, content, 100_000) for content in contents]
    if tail:  # and an object in the middle of its reception
        writer = store.create(MEGABYTE)
        for _ in range(tail // MEGABYTE):
            writer.room(MEGABYTE)
            writer.advance(MEGABYTE)
    forget(store)
    asked: list[bytes] = []

    def named(segment: bytes) -> list[bytes]:
        asked.append(segment)
        return [ids[number] for number in reversed(kept)]

    new = SegmentStore(objects)
    alone = [number for number in range(3) if number not in kept]
    stretches = {(): 1, (0,): 1, (1,): 2, (2,): 1, (0, 2): 1, (0, 1): 1, (1, 2): 1, (0, 1, 2): 0}[kept]
    ends_kept = bool(tail) and 2 in kept
    assert new.sweep(named) == stretches + ends_kept
    assert new.sweep(named) == 0
    assert asked == [ids[0][:12]]
    assert set(extents(objects)) == {ids[number] for number in kept}
    assert stored_bytes(objects) == object_bytes(objects)
    assert [get(new, ids[number]) for number in kept] == [contents[number] for number in kept]
    assert [path.suffix for path in segments(objects)] == [".seg"] * bool(kept)
    for number in alone:
        with pytest.raises(NotFoundError):
            get(new, ids[number])


def test_sweep_spares_a_damaged_object_that_the_index_names(store: SegmentStore, objects: Path) -> None:
    ids = [put(store, bytes([number + 1]) * 10_000) for number in range(4)]
    contents = [sealed(objects, object_id) for object_id in ids]
    (path,) = segments(objects)
    with path.open("r+b") as file:
        file.seek(0)
        file.write(bytes(16))  # no mark any more
        file.seek(2 * 3 * BLOCK + 8)
        file.write(b"\xff" * 8)  # an absurd length
    forget(store)
    data = path.read_bytes()
    absent = ids[0][:12] + b"\xff\0\0\0"
    assert SegmentStore(objects).sweep(lambda _: [ids[0], ids[2], ids[3], absent]) == 0  # where it ends nobody knows
    (path,) = segments(objects)
    assert path.read_bytes() == data
    assert get(SegmentStore(objects), ids[3]) == contents[3]


def test_sweep_leaves_files_alone_that_are_no_segments(store: SegmentStore, objects: Path) -> None:
    put(store, b"x")
    strangers = [objects / name for name in ("notes.open", f"{'ab' * 12}.open~", f"{'AB' * 12}.open", "ab.open")]
    for stranger in strangers:
        stranger.write_bytes(b"somebody's")
    forget(store)
    assert SegmentStore(objects).sweep(nothing_named) == 1
    assert sorted(objects.iterdir()) == sorted(strangers)


def test_sweep_that_fails_is_store_unavailable_and_can_be_repeated(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"x")
    forget(store)
    with monkeypatch.context() as patch:
        fail_at(patch, "ftruncate", 1, errno.EIO)
        with pytest.raises(StoreUnavailable, match="swept"):
            SegmentStore(objects).sweep(nothing_named)
    assert SegmentStore(objects).sweep(nothing_named) == 1
    assert segments(objects) == []
    assert SegmentStore(objects.with_name("none")).sweep(nothing_named) == 0


def test_sweep_between_making_and_locking_a_segment_harms_nobody(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = module._lock, []

    def late(descriptor: int) -> bool:
        if not swept:
            swept.append(True)
            monkeypatch.setattr(module, "_lock", real)
            SegmentStore(objects).sweep(nothing_named)
            assert segments(objects) == []
        return real(descriptor)

    monkeypatch.setattr(module, "_lock", late)
    assert get(store, put(store, b"x")) == b"x"
    assert len(segments(objects)) == 1


def test_segment_that_is_closed_while_a_reader_opens_it_is_found(
    store: SegmentStore, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_id = put(store, b"x")
    real = os.open

    def slow(path: Path, *arguments: Any) -> int:
        try:
            return real(path, *arguments)
        except FileNotFoundError:
            for segment in objects.glob("*.open"):  # closed just after `.seg` was not there
                segment.rename(segment.with_suffix(".seg"))
            raise

    monkeypatch.setattr(module.os, "open", slow)
    assert get(store, object_id) == b"x"


PUT = """
import sys
from pathlib import Path
from support.segments import put
from radnode.storage.segments import SegmentStore
store = SegmentStore(Path(sys.argv[1]))
for line in sys.stdin:
    print(put(store, line.encode() * int(sys.argv[2]), 1 << 20).hex(), flush=True)
"""


def test_two_processes_at_once_keep_apart_and_sweep_touches_only_the_dead_ones(
    store: SegmentStore, objects: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PUT, str(objects), "1000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs, ours = [], []
        for number in range(10):
            other.stdin.write(f"{number}\n")
            other.stdin.flush()
            ours.append(put(store, b"ours"))
            theirs.append(bytes.fromhex(other.stdout.readline()))
        third = SegmentStore(objects)
        assert third.sweep(nothing_named) == 0
        assert {get(store, object_id) for object_id in ours} == {b"ours"}
        assert [get(store, object_id) for object_id in theirs] == [f"{n}\n".encode() * 1000 for n in range(10)]
        other.kill()
        other.wait()
        assert third.sweep(lambda _: theirs[5:6]) == 2
    assert set(extents(objects)) == {theirs[5], *ours}
    ours.append(put(store, b"ours"))
    assert set(extents(objects)) == {theirs[5], *ours}


def test_child_that_outlives_its_parent_holds_no_lock(objects: Path) -> None:
    code = PUT.replace("import sys", "import subprocess, sys").replace(
        "for line", "child = subprocess.Popen(['sleep', '30'])\nfor line"
    )
    code += "    print(child.pid, flush=True)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code, str(objects), "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("x\n")
        other.stdin.flush()
        other.stdout.readline()
        child = int(other.stdout.readline())
        other.kill()
        other.wait()
        try:
            assert SegmentStore(objects).sweep(nothing_named) == 1
        finally:
            os.kill(child, 9)


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
