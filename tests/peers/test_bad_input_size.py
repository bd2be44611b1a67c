"""Row 16 of "Bad input and what it gets" (security.md): more than this node takes, in bounded memory.

The limit on an object is 64 MiB here, and what the intake process may take meanwhile is half of it: nothing is
gathered first and measured then.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from pydicom.uid import generate_uid
from support.bad_input import Target, raw_data_set, target_in

LIMIT, PEAK = 64 << 20, 32 << 20  # bytes
OVER = LIMIT + (LIMIT >> 1)
DEFLATED = "1.2.840.10008.1.2.1.99"
PIXELS = b"\xe0\x7f\x10\x00OW\x00\x00"
PRIVATE = b"\x09\x00\x10\x00LO\x04\x00TEST\x09\x00\x01\x10OB\x00\x00"
ITEM, ITEM_END, SEQUENCE_END = (b"\xfe\xff" + tag for tag in (b"\x00\xe0", b"\x0d\xe0", b"\xdd\xe0"))
MILLION = 1_000_000


@pytest.fixture(scope="module")
def small_node(lane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp(f"size-{lane}")
    limits = {"RADNODE_NODE__MAX_OBJECT_BYTES": str(LIMIT), "RADNODE_NODE__IDLE_SECONDS": "20"}
    with target_in(folder, lane, **limits) as target:
        yield target


def assert_refused(target: Target, data_set: bytes, uid: str, status: int, syntax: str = "1.2.840.10008.1.2.1") -> None:
    """The object gets this status in bounded memory, nothing of it is on the disk, and the association goes on."""
    files = sorted((target.node.folder / "objects").rglob("*"))
    with target.attacked(f"{status:04X}", peak=PEAK):
        assert target.store_bytes(data_set, uid, syntax=syntax) == status
    assert sorted((target.node.folder / "objects").rglob("*")) == files
    assert target.kept(uid) is None


MILLIONS = {
    "items": b"\x11\x40\x40\x00SQ\x00\x00" + struct.pack("<I", 8 * MILLION) + (ITEM + bytes(4)) * MILLION,
    "items of undefined length": b"\x11\x40\x40\x00SQ\x00\x00\xff\xff\xff\xff"
    + (ITEM + b"\xff\xff\xff\xff" + ITEM_END + bytes(4)) * MILLION
    + SEQUENCE_END
    + bytes(4),
    "elements": b"\x11\x40\x40\x00SH\x00\x00" * MILLION,
    "fragments": b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff" + (ITEM + bytes(4)) * MILLION + SEQUENCE_END + bytes(4),
}


@pytest.mark.parametrize("million", MILLIONS)
def test_row_16_a_million_items_are_a700(small_node: Target, million: str) -> None:
    uid = generate_uid()
    assert_refused(small_node, raw_data_set(uid) + MILLIONS[million], uid, 0xA700)


def test_row_16_object_over_the_limit_is_a700(small_node: Target) -> None:
    uid = generate_uid()
    assert_refused(small_node, raw_data_set(uid) + PIXELS + struct.pack("<I", OVER) + bytes(OVER), uid, 0xA700)


def test_row_16_private_ob_of_4_gib_is_a700(small_node: Target) -> None:
    uid = generate_uid()
    endless = raw_data_set(uid) + PRIVATE + struct.pack("<I", 2**32 - 2) + bytes(OVER)
    assert_refused(small_node, endless, uid, 0xA700)


def test_row_16_private_ob_that_claims_4_gib_and_ends_is_c000(small_node: Target) -> None:
    uid = generate_uid()
    assert_refused(small_node, raw_data_set(uid) + PRIVATE + struct.pack("<I", 2**32 - 2) + bytes(1000), uid, 0xC000)


@pytest.mark.parametrize("begin", [PIXELS, PRIVATE], ids=["pixels", "private OB"])
def test_row_16_deflate_bomb_is_a700(small_node: Target, begin: bytes) -> None:
    uid = generate_uid()
    bomb = deflate_bomb(raw_data_set(uid) + begin + struct.pack("<I", 3 << 30), 3 << 30)
    assert len(bomb) < 8 << 20
    assert_refused(small_node, bomb, uid, 0xA700, DEFLATED)


def test_row_16_bomb_behind_the_end_of_a_deflated_data_set_is_bounded(
    small_node: Target,
) -> None:
    uid = generate_uid()
    data_set = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    whole = data_set.compress(raw_data_set(uid)) + data_set.flush()
    with small_node.attacked(peak=PEAK):
        assert small_node.store_bytes(whole + deflate_bomb(b"", 1 << 30), uid, syntax=DEFLATED) == 0x0000


def test_row_16_object_of_the_limit_is_stored_in_bounded_memory(small_node: Target) -> None:
    uid = generate_uid()
    head = raw_data_set(uid) + PIXELS
    room = LIMIT - len(head) - 4
    with small_node.attacked(peak=PEAK):
        assert small_node.store_bytes(head + struct.pack("<I", room) + bytes(room), uid) == 0x0000


def deflate_bomb(begin: bytes, zeros: int) -> bytes:
    """Raw deflate of some bytes and then that many zeros, a multiple of 64 MiB."""
    block = bytes(64 << 20)
    head = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    compressed = head.compress(begin) + head.flush(zlib.Z_FULL_FLUSH)  # what follows refers to nothing before it
    body = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    repeated = body.compress(block) + body.flush(zlib.Z_FULL_FLUSH)
    return compressed + repeated * (zeros // len(block)) + zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()
