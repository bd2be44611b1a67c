"""A reception: sealed while it arrives, in bounded memory, and nothing remains of what is not kept."""

from __future__ import annotations

import errno
import os
import resource
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from sqlalchemy.exc import IntegrityError
from support.rooms import PEER, Rooms, encoded, request_for, small
from support.segments import damage, erase, segments

from radnode import reception as module
from radnode.errors import (
    DuplicateInstance,
    IdentityMismatch,
    MalformedDataSet,
    ObjectTooLarge,
    RadnodeError,
    SealBroken,
    StoreUnavailable,
)
from radnode.intake import Receipt
from radnode.jobs.database import transaction
from radnode.model import PeerIdentity, StoreRequest
from radnode.part10 import read_file_meta
from radnode.reception import InstanceReception
from radnode.storage import extents
from radnode.storage.sealing import CHUNK

HEAD = encoded(small())


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def private(size: int, group: int = 0x0041) -> bytes:
    """A private element of so many bytes, which stands behind the identity."""
    return struct.pack("<HH2s2xI", group, 0x1001, b"OB", size) + bytes(size)


def big(size: int, number: int = 1) -> bytes:
    """A data set of exactly `size` bytes."""
    head = encoded(small(number))
    return head + private(size - len(head) - 12)


def begin(rooms: Rooms, request: StoreRequest | None = None) -> InstanceReception[Receipt]:
    return rooms.intake.begin(request or request_for(small()))


def push(reception: InstanceReception[Receipt], data: bytes, step: int = 1 << 30) -> None:
    """Write `data` the way a reader of PDUs of `step` bytes does."""
    position = 0
    while position < len(data):
        room = reception.room()
        count = min(len(room), step, len(data) - position)
        room[:count] = data[position : position + count]
        reception.advance(count)
        position += count


def kept(rooms: Rooms) -> bytes:
    (object_id,) = rooms.kept_objects()
    part10 = rooms.vault.get(object_id)
    return part10[read_file_meta(part10).offset :]


def nothing_remains(rooms: Rooms) -> bool:
    tables = [rooms.count(name) for name in ("instances", "jobs", "audit_entries")]
    return tables == [0, 0, 0] and rooms.holds_nothing()


def header_length() -> int:
    return len(module.file_header(request_for(small())))


@pytest.mark.parametrize("chunks", [1, 2, 5])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("step", [16_378, 1 << 30])
def test_object_of_any_size_is_kept_byte_for_byte(rooms: Rooms, chunks: int, beyond: int, step: int) -> None:
    data = big(chunks * CHUNK - header_length() + beyond)
    reception = begin(rooms)
    push(reception, data, step)
    assert reception.finish().size == len(data)
    assert kept(rooms) == data


def test_object_is_written_sealed_while_it_arrives(rooms: Rooms) -> None:
    reception = begin(rooms)
    push(reception, big(4 * CHUNK)[: 3 * CHUNK])
    (file,) = segments(rooms.objects_folder)
    assert file.stat().st_size >= CHUNK
    assert b"SECRET" not in file.read_bytes()
    assert rooms.kept_objects() == []
    reception.abandon()
    assert nothing_remains(rooms)


def test_abandoned_reception_leaves_nothing(rooms: Rooms) -> None:
    for size in (0, 10, CHUNK, 3 * CHUNK):
        reception = begin(rooms)
        push(reception, big(4 * CHUNK)[:size])
        reception.abandon()
    assert nothing_remains(rooms)


def test_room_is_never_empty_whatever_went_wrong(rooms: Rooms) -> None:
    reception = begin(rooms)
    for _ in range(100):
        assert len(reception.room()) > 0
        reception.advance(len(reception.room()))
    with pytest.raises(MalformedDataSet):
        reception.finish()
    assert nothing_remains(rooms)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEAD + b"junk behind" + bytes(4 * CHUNK), MalformedDataSet),
        (big(3 * CHUNK)[:-1], MalformedDataSet),
        (b"", IdentityMismatch),
        (big(17 << 20), ObjectTooLarge),
        (big(3 * CHUNK, number=2), IdentityMismatch),
    ],
    ids=["junk", "cut", "nothing", "too large", "another instance"],
)
def test_what_is_refused_is_taken_to_its_end_and_leaves_nothing(
    rooms: Rooms, data: bytes, error: type[RadnodeError]
) -> None:
    reception = begin(rooms)
    push(reception, data, 100_000)
    with pytest.raises(error):
        reception.finish()
    assert nothing_remains(rooms)
    assert not rooms.intake.receive(request_for(small()), HEAD).known


def test_object_over_the_limit_is_given_up_where_the_limit_is(rooms: Rooms) -> None:
    reception = begin(rooms)
    data = big(32 << 20)
    push(reception, data[: 1 << 24])
    assert not rooms.holds_nothing()
    push(reception, data[1 << 24 : (1 << 24) + 1])
    assert rooms.holds_nothing()
    with pytest.raises(ObjectTooLarge, match="max_object_bytes"):
        reception.finish()


def test_chunks_wait_for_the_study_and_not_without_bound(rooms: Rooms) -> None:
    study = HEAD.index(b"\x20\x00\x0d\x00")
    late = HEAD[:study] + private(1 << 20, group=0x0019) + HEAD[study:]
    receipt = rooms.intake.receive(request_for(small()), late)
    assert receipt.study == rooms.pseudonyms.study("1.2.3")
    assert kept(rooms) == late
    dataset = small(2)
    too_late = encoded(dataset)[:study] + private(module.MAX_WAITING, group=0x0019) + encoded(dataset)[study:]
    with pytest.raises(ObjectTooLarge, match="Study Instance UID does not stand in the first 8 MiB"):
        rooms.intake.receive(request_for(dataset), too_late)
    assert len(rooms.kept_objects()) == 1


def test_disk_that_fills_up_in_the_middle_leaves_nothing(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.pwrite, 2 * CHUNK

    def write(descriptor: int, data: memoryview, position: int) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, data[:left], position)
        left -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(extents.os, "pwrite", write)
        reception = begin(rooms)
        push(reception, big(6 * CHUNK))
        assert rooms.holds_nothing()
        with pytest.raises(StoreUnavailable, match="No space left"):
            reception.finish()
    assert nothing_remains(rooms)
    assert not rooms.intake.receive(request_for(small()), HEAD).known


def test_row_that_the_database_refuses_leaves_nothing(rooms: Rooms) -> None:
    with transaction(rooms.engine) as tx:
        tx.exec_driver_sql("CREATE TRIGGER no BEFORE INSERT ON instances BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(IntegrityError):
        rooms.intake.receive(request_for(small()), HEAD)
    assert nothing_remains(rooms)


def test_process_without_a_free_descriptor_is_out_of_resources_and_recovers(rooms: Rooms) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    rooms.count("instances")  # a connection to the database is there
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(RadnodeError) as caught:
            rooms.intake.receive(request_for(small()), HEAD)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.status == 0xA700
    assert nothing_remains(rooms)
    assert not rooms.intake.receive(request_for(small()), HEAD).known


def test_store_that_is_taken_away_in_the_middle_is_out_of_resources_and_recovers(rooms: Rooms) -> None:
    reception = begin(rooms)
    data = big(3 * CHUNK)
    push(reception, data[: 2 * CHUNK])
    (rooms.folder / "objects").rename(rooms.folder / "away")
    push(reception, data[2 * CHUNK :])
    with pytest.raises(StoreUnavailable):
        reception.finish()
    assert [rooms.count(name) for name in ("instances", "jobs", "audit_entries")] == [0, 0, 0]
    assert not rooms.intake.receive(request_for(small()), data).known
    assert kept(rooms) == data


def test_deflated_object_is_kept_as_sent_and_a_bomb_is_out_of_resources(rooms: Rooms) -> None:
    def deflated(data: bytes) -> bytes:
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        return squeeze.compress(data) + squeeze.flush()

    request = request_for(small(), DeflatedExplicitVRLittleEndian)
    with pytest.raises(ObjectTooLarge, match="inflates to more than"):
        rooms.intake.receive(request, deflated(big(64 << 20)))
    assert nothing_remains(rooms)
    data = deflated(HEAD + private(CHUNK)) + os.urandom(2 * CHUNK)  # what stands behind the stream is kept too
    rooms.intake.receive(request, data)
    assert kept(rooms) == data


def test_twenty_receptions_at_once_hold_two_chunks_each_and_none_when_they_are_through(rooms: Rooms) -> None:
    taken: list[Any] = []
    real = rooms.vault.buffers.take

    def take() -> memoryview:
        buffer = real()
        if not any(buffer is known for known in taken):
            taken.append(buffer)
        return buffer

    rooms.vault.buffers.take = take  # type: ignore[method-assign]
    receptions = [begin(rooms, request_for(small(number))) for number in range(20)]
    data = [big(10 * CHUNK, number) for number in range(20)]
    for start in range(0, 10 * CHUNK, 100_000):
        for reception, content in zip(receptions, data, strict=True):
            push(reception, content[start : start + 100_000])
    assert [reception.finish().known for reception in receptions] == [False] * 20
    assert len(taken) <= 2 * 20
    before = len(taken)
    assert not rooms.intake.receive(request_for(small(21)), big(10 * CHUNK, 21)).known
    assert len(taken) == before  # used again


def test_receptions_in_threads_keep_their_bytes_apart(rooms: Rooms) -> None:
    receipts: dict[int, Receipt] = {}

    def send(number: int) -> None:
        data = encoded(small(number)) + struct.pack("<HH2s2xI", 0x41, 0x1001, b"OB", CHUNK) + bytes([number]) * CHUNK
        receipts[number] = rooms.intake.receive(request_for(small(number)), data)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipts) == list(range(8))
    ends = sorted(rooms.vault.get(object_id)[-CHUNK:] for object_id in rooms.kept_objects())
    assert ends == [bytes([number]) * CHUNK for number in range(8)]


def test_same_instance_from_another_peer_is_the_same(rooms: Rooms) -> None:
    data = big(3 * CHUNK)
    rooms.intake.receive(request_for(small()), data)
    other = replace(request_for(small()), peer=PeerIdentity("A-LONGER-TITLE", PEER.certificate, PEER.address))
    assert rooms.intake.receive(other, data).known
    assert len(rooms.kept_objects()) == 1


@pytest.mark.parametrize("position", [300, CHUNK, -1])
def test_one_other_byte_anywhere_is_another_instance(rooms: Rooms, position: int) -> None:
    data = big(3 * CHUNK)
    rooms.intake.receive(request_for(small()), data)
    changed = bytearray(data)
    changed[position] ^= 1
    with pytest.raises(DuplicateInstance):
        rooms.intake.receive(request_for(small()), bytes(changed))
    assert kept(rooms) == data


def test_instance_whose_kept_object_is_damaged_or_gone_is_not_promised_again(rooms: Rooms) -> None:
    rooms.intake.receive(request_for(small()), HEAD)
    (object_id,) = rooms.kept_objects()
    damage(rooms.objects_folder, object_id)
    with pytest.raises(SealBroken) as broken:
        rooms.intake.receive(request_for(small()), HEAD)
    assert rooms.kept_objects() == [object_id]
    erase(rooms.objects_folder, object_id)
    with pytest.raises(StoreUnavailable) as gone:
        rooms.intake.receive(request_for(small()), HEAD)
    assert (broken.value.status, gone.value.status) == (0xA700, 0xA700)
    assert rooms.kept_objects() == []
    assert [rooms.count(name) for name in ("instances", "jobs", "audit_entries")] == [1, 1, 1]


def test_unknown_transfer_syntax_is_kept_as_it_is_named(rooms: Rooms) -> None:
    request = replace(request_for(small()), transfer_syntax_uid="1.2.3.4.5")
    receipt = rooms.intake.receive(request, HEAD)
    assert not receipt.known
    with pytest.raises(DuplicateInstance):
        rooms.intake.receive(request_for(small(), ExplicitVRLittleEndian), HEAD)
