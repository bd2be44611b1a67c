"""The object store: durable under its id, whatever its size and whoever else writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.rooms import modes
from support.segments import (
    BLOCK,
    extents,
    get,
    half_written,
    nothing_named,
    put,
    sealed,
    segments,
    stored_bytes,
)

from radnode.errors import NotFoundError
from radnode.storage import segments as module
from radnode.storage.extents import STAGING_BYTES
from radnode.storage.segments import SegmentStore

MEGABYTE = 1 << 20


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(objects: Path) -> SegmentStore:
    return SegmentStore(objects)


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
