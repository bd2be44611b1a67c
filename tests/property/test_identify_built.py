"""identify against data sets built here byte by byte, whole and damaged, and against pydicom's reading of them."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from support.fuzz_targets import check_against_pydicom

from radnode.errors import InputError
from radnode.identify import identify

LIMIT = 1 << 24
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
SHORT = (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS")
SHORT += (b"ST", b"TM", b"UI", b"UL", b"US")
UNDEFINED = 0xFFFFFFFF
REFERENCED_IMAGE_SEQUENCE = 0x00081140

UIDS = st.lists(st.integers(0, 99999), min_size=1, max_size=9).map(lambda parts: ".".join(map(str, parts)))


@dataclass(frozen=True)
class Encoding:
    """One way to write elements (PS3.5 section 7 and Annex A)."""

    syntax: str

    @property
    def endian(self) -> str:
        return ">" if self.syntax == ExplicitVRBigEndian else "<"

    def element(self, tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
        length = len(value) if length is None else length
        head = struct.pack(self.endian + "HH", tag >> 16, tag & 0xFFFF)
        if self.syntax == ImplicitVRLittleEndian:
            head += struct.pack(self.endian + "I", length)
        elif vr in SHORT:
            head += vr + struct.pack(self.endian + "H", length)
        else:
            head += vr + struct.pack(self.endian + "HI", 0, length)
        return head + value

    def delimiter(self, element: int, value: bytes = b"", length: int | None = None) -> bytes:
        return struct.pack(self.endian + "HHI", 0xFFFE, element, len(value) if length is None else length) + value

    def sequence(self, tag: int, items: list[bytes], *, undefined: bool) -> bytes:
        if not undefined:
            return self.element(tag, b"SQ", b"".join(self.delimiter(0xE000, item) for item in items))
        written = [self.delimiter(0xE000, item + self.delimiter(0xE00D), UNDEFINED) for item in items]
        return self.element(tag, b"SQ", b"".join(written) + self.delimiter(0xE0DD), UNDEFINED)

    def whole(self, elements: bytes) -> bytes:
        if self.syntax != DeflatedExplicitVRLittleEndian:
            return elements
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        deflated = deflate.compress(elements) + deflate.flush()
        return deflated + b"\0" * (len(deflated) % 2)


@dataclass(frozen=True)
class Built:
    """A data set and what it says of itself."""

    encoding: Encoding
    elements: bytes
    identity: dict[str, str]


def padded(text: str, filler: bytes) -> bytes:
    raw = text.encode()
    return raw + filler * (len(raw) % 2)


def identifying(encoding: Encoding, identity: dict[str, str]) -> dict[int, bytes]:
    """The encoded identifying elements by tag."""
    tags = {
        "SOPClassUID": 0x00080016,
        "SOPInstanceUID": 0x00080018,
        "PatientID": 0x00100020,
        "StudyInstanceUID": 0x0020000D,
        "SeriesInstanceUID": 0x0020000E,
    }
    return {
        tag: encoding.element(
            tag,
            *((b"LO", padded(identity[name], b" ")) if name == "PatientID" else (b"UI", padded(identity[name], b"\0"))),
        )
        for name, tag in tags.items()
    }


@st.composite
def contents(draw: st.DrawFn, encoding: Encoding, depth: int = 3) -> dict[int, bytes]:
    """Encoded elements by tag: private ones of every VR, and sequences whose items hold further ones or an identity."""
    found = {}
    for number in draw(st.lists(st.integers(0x1000, 0x10FF), max_size=4, unique=True)):
        vr = draw(st.sampled_from(LONG + SHORT))
        value = draw(st.binary(max_size=12))
        found[0x00090000 + number] = encoding.element(0x00090000 + number, vr, value + b"\0" * (len(value) % 2))
    if depth and draw(st.booleans()):
        items = []
        for _ in range(draw(st.integers(0, 3))):
            inner = draw(contents(encoding, depth - 1))
            if draw(st.booleans()):
                inner |= identifying(encoding, dict.fromkeys(KEYWORDS, "9.9"))
            items.append(b"".join(inner[tag] for tag in sorted(inner)))
        found[REFERENCED_IMAGE_SEQUENCE] = encoding.sequence(
            REFERENCED_IMAGE_SEQUENCE, items, undefined=draw(st.booleans())
        )
    return found


KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")


@st.composite
def built(draw: st.DrawFn) -> Built:
    encoding = Encoding(draw(st.sampled_from(SYNTAXES)))
    identity = {keyword: draw(UIDS) for keyword in KEYWORDS}
    elements = draw(contents(encoding)) | identifying(encoding, identity)
    if draw(st.booleans()):
        elements[0x7FE00010] = encoding.element(
            0x7FE00010, b"OW", draw(st.binary(max_size=40).map(lambda raw: raw * 2))
        )
    return Built(encoding, b"".join(elements[tag] for tag in sorted(elements)), identity)


@settings(max_examples=300)
@given(built())
def test_whole_data_set_has_the_identity_of_its_top_level(data_set: Built) -> None:
    raw = data_set.encoding.whole(data_set.elements)
    found = identify(raw, data_set.encoding.syntax, LIMIT)
    assert {keyword: getattr(found, keyword) for keyword in KEYWORDS} == data_set.identity
    check_against_pydicom(found, raw, data_set.encoding.syntax)


LIES = st.sampled_from(
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"SQ", b"UN"]
)


@settings(max_examples=400)
@given(built(), built(), st.data())
def test_damaged_data_set_is_an_input_error_or_what_pydicom_reads(
    one: Built, other: Built, data: st.DataObject
) -> None:
    syntax, changed = one.encoding.syntax, bytearray(one.elements)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = data.draw(st.sampled_from(["flip", "cut", "lie", "splice", "repeat"]))
        if kind == "flip" and changed:
            changed[position] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del changed[position:]
        elif kind == "lie":
            lie = data.draw(LIES)
            changed[position : position + len(lie)] = lie
        elif kind == "splice":
            changed[position:] = other.elements[data.draw(st.integers(0, len(other.elements))) :]
        else:
            changed[position:position] = changed[position : position + 40]
    raw = one.encoding.whole(bytes(changed))
    try:
        found = identify(raw, syntax, LIMIT)
    except InputError as error:
        assert "9.9" not in str(error)
    else:
        check_against_pydicom(found, raw, syntax)


def flat(encoding: Encoding, count: int) -> bytes:
    return encoding.element(0x00091000, b"LO", b"") * count


def deep(encoding: Encoding, count: int) -> bytes:
    """Elements, each of which lies in as many open sequences as may be."""
    inner = flat(encoding, count)
    for _ in range(31):
        inner = encoding.sequence(REFERENCED_IMAGE_SEQUENCE, [inner], undefined=True)
    return inner


def deep_again_and_again(encoding: Encoding, count: int) -> bytes:
    return deep(encoding, 0) * (count // 31)


def empty_items(encoding: Encoding, count: int) -> bytes:
    return encoding.sequence(REFERENCED_IMAGE_SEQUENCE, [b""] * count, undefined=True)


def unknown_sequences(encoding: Encoding, count: int) -> bytes:
    return encoding.element(0x00091001, b"UN", encoding.delimiter(0xE0DD), UNDEFINED) * count


def fragments(encoding: Encoding, count: int) -> bytes:
    items = encoding.delimiter(0xE000) * count + encoding.delimiter(0xE0DD)
    return encoding.element(0x7FE00010, b"OB", items, UNDEFINED)


SHAPES = (flat, deep, deep_again_and_again, empty_items, unknown_sequences, fragments)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=["implicit", "explicit", "big-endian", "deflated"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_time_grows_with_the_length_and_memory_does_not(shape: Callable[[Encoding, int], bytes], syntax: str) -> None:
    encoding = Encoding(syntax)
    seconds = {}
    for count in (2_000, 16_000):
        raw = encoding.whole(shape(encoding, count))
        seconds[count] = min(cpu_seconds(raw, syntax) for _ in range(3))
    assert seconds[16_000] < 24 * seconds[2_000]  # 8 times as long: quadratic would be 64 times
    tracemalloc.start()
    try:
        cpu_seconds(raw, syntax)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def cpu_seconds(raw: bytes, syntax: str) -> float:
    """How long the walk over a data set without identity takes: CPU time, which no neighbour lengthens."""
    began = time.process_time()
    with pytest.raises(InputError):
        identify(raw, syntax, LIMIT)
    return time.process_time() - began
