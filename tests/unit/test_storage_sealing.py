"""The sealed object: what goes in comes out, and nothing that was touched comes out at all."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from cryptography.exceptions import InvalidTag
from support import unseal as independent
from support.sealed import header_of, open_sealed, seal

from radnode.errors import SealBroken
from radnode.storage import sealing
from radnode.storage.sealing import CHUNK, HEADER, TAG, Kind

KEY = b"k" * 32
OBJECT = bytes(range(16))
ARGUMENTS = {"kind": Kind.INSTANCE, "key_id": b"i" * 16, "study_key": KEY, "object_id": OBJECT}


def small_chunks(monkeypatch: pytest.MonkeyPatch, size: int = 16) -> None:
    monkeypatch.setattr(sealing, "CHUNK", size)


def with_valid_crc(sealed: bytes) -> bytes:
    """What an attacker who knows the format would do after changing the header."""
    return sealed[:112] + struct.pack(">I", zlib.crc32(sealed[:112])) + sealed[116:]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 << 20])
def test_plaintext_of_any_size_comes_back_in_both_readers(size: int) -> None:
    plaintext = bytes(index % 251 for index in range(1009)) * (size // 1009 + 1)
    sealed = seal(plaintext[:size], **ARGUMENTS)
    assert open_sealed(sealed, KEY) == plaintext[:size]
    assert independent.unseal(sealed, KEY) == plaintext[:size]
    assert len(sealed) == HEADER + size + TAG * (size // CHUNK + 1)


def test_header_says_what_it_holds_and_nothing_of_the_plaintext() -> None:
    header = header_of(seal(b"Secret^Name", **ARGUMENTS))
    assert (header.kind, header.key_id, header.object_id) == (Kind.INSTANCE, b"i" * 16, OBJECT)
    assert b"Secret" not in header.encode()


def test_same_plaintext_is_never_sealed_the_same_way_twice() -> None:
    first, second = seal(b"same", **ARGUMENTS), seal(b"same", **ARGUMENTS)
    assert first[HEADER:] != second[HEADER:]
    assert header_of(first).salt != header_of(second).salt


def test_every_flipped_bit_of_a_byte_anywhere_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    sealed = seal(b"forty bytes of a patient's private image", **ARGUMENTS)
    for position in range(len(sealed)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(sealed)
            changed[position] ^= mask
            for candidate in (bytes(changed), with_valid_crc(bytes(changed))):
                if candidate == sealed:
                    continue  # only the checksum was touched, and mended
                with pytest.raises(SealBroken):
                    open_sealed(candidate, KEY)
                with pytest.raises((ValueError, InvalidTag)):
                    independent.unseal(candidate, KEY)


def test_every_truncation_and_every_extension_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    sealed = seal(b"forty bytes of a patient's private image", **ARGUMENTS)
    for candidate in [*(sealed[:end] for end in range(len(sealed))), sealed + b"\0", sealed + sealed[-TAG:]]:
        with pytest.raises(SealBroken):
            open_sealed(candidate, KEY)


def test_cut_at_a_chunk_and_a_forged_end_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    sealed = seal(bytes(40), **ARGUMENTS)
    whole = HEADER + 2 * (16 + TAG)
    for candidate in (sealed[:whole], sealed[:whole] + sealed[whole:][:TAG], sealed[: whole - TAG]):
        with pytest.raises(SealBroken, match="changed"):
            open_sealed(candidate, KEY)


def test_other_chunk_size_in_the_header_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    sealed = bytearray(seal(bytes(40), **ARGUMENTS))
    for size in (8, 15, 17, 32, 1 << 24):
        sealed[12:16] = struct.pack(">I", size)
        with pytest.raises(SealBroken, match="changed"):
            open_sealed(with_valid_crc(bytes(sealed)), KEY)


def test_chunks_are_released_one_by_one_and_none_that_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    sealed = bytearray(seal(bytes(range(40)), **ARGUMENTS))
    sealed[-1] ^= 1
    source = io.BytesIO(sealed)
    chunks = sealing.unseal(sealing.read_header(source), source, KEY)
    assert [next(chunks), next(chunks)] == [bytes(range(16)), bytes(range(16, 32))]
    with pytest.raises(SealBroken, match="changed"):
        next(chunks)


def test_chunk_that_is_not_full_is_only_ever_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    room = memoryview(bytearray(HEADER + 16 + TAG))
    for size, final in ((15, False), (16, True), (17, False)):
        with pytest.raises(ValueError, match="full"):
            sealing.Sealer(**ARGUMENTS).seal_into(room, memoryview(bytes(size)), final=final)


def test_swapped_repeated_and_dropped_chunks_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    sealed = seal(bytes(48), **ARGUMENTS)
    header, body, step = sealed[:HEADER], sealed[HEADER:], 16 + TAG
    one, two, three = (body[index * step : (index + 1) * step] for index in range(3))
    for parts in ((two, one, three), (one, three, two), (one, one, three), (one, two, two), (one, two), (two, three)):
        with pytest.raises(SealBroken):
            open_sealed(header + b"".join(parts), KEY)


def test_chunk_of_another_object_under_the_same_key_is_detected() -> None:
    first, second = seal(b"a" * 40, **ARGUMENTS), seal(b"b" * 40, **ARGUMENTS)
    with pytest.raises(SealBroken, match="changed"):
        open_sealed(first[:HEADER] + second[HEADER:], KEY)


def test_object_under_another_id_or_kind_does_not_open() -> None:
    sealed = bytearray(seal(b"x", **ARGUMENTS))
    sealed[32:48] = b"another object!!"
    with pytest.raises(SealBroken, match="key of its study"):
        open_sealed(with_valid_crc(bytes(sealed)), KEY)
    sealed = bytearray(seal(b"x", **ARGUMENTS))
    sealed[9] = Kind.REPORT
    with pytest.raises(SealBroken, match="key of its study"):
        open_sealed(with_valid_crc(bytes(sealed)), KEY)


def test_other_study_key_is_named_by_the_commitment_before_anything_is_decrypted() -> None:
    with pytest.raises(SealBroken, match="key of its study"):
        open_sealed(seal(b"x", **ARGUMENTS), b"K" * 32)


def test_junk_is_only_ever_seal_broken() -> None:
    for junk in (b"", b"RADSEAL\x02", bytes(200), b"\xff" * 200, with_valid_crc(b"RADSEAL\x01" + bytes(192))):
        with pytest.raises(SealBroken):
            open_sealed(junk, KEY)


@pytest.mark.parametrize("size", [0, (16 << 20) + 1, 0xFFFFFFFF])
def test_absurd_chunk_size_is_refused_without_allocation(size: int) -> None:
    sealed = bytearray(seal(b"x", **ARGUMENTS))
    sealed[12:16] = struct.pack(">I", size)
    with pytest.raises(SealBroken, match="format"):
        open_sealed(with_valid_crc(bytes(sealed)), KEY)
