"""What is deleted or named by nobody gives its room back, and a sweep spares everything else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.segments import (
    BLOCK,
    extents,
    fail_at,
    forget,
    get,
    nothing_named,
    object_bytes,
    put,
    sealed,
    segments,
    stored_bytes,
)

from radnode.errors import NotFoundError, StoreUnavailable
from radnode.storage import segments as module
from radnode.storage.segments import SegmentStore

MISSING = bytes(16)
MEGABYTE = 1 << 20


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(objects: Path) -> SegmentStore:
    return SegmentStore(objects)


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
