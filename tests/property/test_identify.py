"""identify: reads what pydicom reads, and answers anything else with an error of its own."""

from __future__ import annotations

import struct
import warnings
import zlib
from functools import cache
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from support import films
from support.rooms import encoded, small

from radnode.errors import IdentityMismatch, InputError, MalformedDataSet, RadnodeError
from radnode.identify import Identifier, Identity, identify
from radnode.part10 import read_file_meta

LIMIT = 1 << 22
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"


def _has_meta(path: Path) -> bool:
    try:
        return read_file_meta(path.read_bytes()).offset > 0
    except MalformedDataSet:
        return False


FILES = sorted(path for path in FOLDER.glob("*.dcm") if _has_meta(path))
BROKEN = {  # pydicom reads what is there of them; a node does not promise to keep half a data set
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "SC_rgb_jpeg.dcm",  # says explicit and is implicit
}


def nested() -> pydicom.Dataset:
    """A data set with sequences in sequences, all three ways to write a length, and a multi-byte name."""
    item = pydicom.Dataset()
    item.SOPInstanceUID = "9.9.9"
    item.PatientID = "NOT-ME"
    inner = pydicom.Dataset()
    inner.ReferencedImageSequence = [item, item]
    return small(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=\u5c71\u7530^\u592a\u90ce",
        RequestAttributesSequence=[inner],
        ReferencedStudySequence=[],
        Rows=4,
        Columns=4,
        BitsAllocated=16,
        PixelData=bytes(32),
    )


@cache
def encodings() -> list[tuple[str, bytes]]:
    dataset = nested()
    dataset["PixelData"].VR = "OW"
    return [(syntax, encoded(dataset, syntax)) for syntax in SYNTAXES]


@cache
def fragments() -> bytes:
    part10 = films.file_bytes(films.undecodable(films.CT[0]))
    return part10[read_file_meta(part10).offset :]


def answer(data: bytes, syntax: str) -> Identity | type[RadnodeError]:
    try:
        return identify(data, syntax, LIMIT)
    except RadnodeError as error:
        assert isinstance(error, InputError)
        assert "SECRET" not in str(error)
        assert "NOT-ME" not in str(error)
        return type(error)


def answer_in_pieces(data: bytes, syntax: str, cuts: list[int]) -> Identity | type[RadnodeError]:
    identifier = Identifier(syntax, LIMIT)
    bounds = [0, *sorted(cuts), len(data)]
    try:
        for start, end in pairwise(bounds):
            identifier.feed(memoryview(data)[start:end])
        return identifier.finish()
    except InputError as error:
        return type(error)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_encoding_has_the_same_identity_and_items_do_not_count(syntax: str) -> None:
    found = identify(dict(encodings())[syntax], syntax, LIMIT)
    assert (found.SOPInstanceUID, found.PatientID) == ("1.2.3.1", "SECRET-1")


@given(st.binary(max_size=300), st.sampled_from([*SYNTAXES, JPEGBaseline8Bit, "1.2.3.4.5"]))
def test_arbitrary_bytes_are_only_ever_an_input_error(junk: bytes, syntax: str) -> None:
    assert not isinstance(answer(junk, syntax), Identity)


@settings(max_examples=600)
@given(st.data())
def test_mutated_data_set_is_an_identity_or_an_input_error(data: st.DataObject) -> None:
    syntax, original = data.draw(st.sampled_from([*encodings(), (JPEGBaseline8Bit, fragments())]))
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, min(len(changed), 2000) - 1))
        replacement = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff\xff\xff\xff", b"SQ", b"UN\0\0"]))
        changed[position : position + data.draw(st.sampled_from([0, len(replacement)]))] = replacement
    answer(bytes(changed), syntax)


@settings(max_examples=600)
@given(st.data())
def test_any_cutting_into_pieces_gives_the_same_answer(data: st.DataObject) -> None:
    syntax, original = data.draw(st.sampled_from([*encodings(), (JPEGBaseline8Bit, fragments()[:3000])]))
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(0, 2))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position : position + 4] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"\xff\xff\xff\xff", b"SQ"])
        )
    cuts = data.draw(st.lists(st.integers(0, len(changed)), max_size=20))
    assert answer_in_pieces(bytes(changed), syntax, cuts) == answer(bytes(changed), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_byte_by_byte_gives_the_same_answer_and_the_study_as_soon_as_it_came(syntax: str) -> None:
    data = dict(encodings())[syntax]
    identifier, known = Identifier(syntax, LIMIT), 0
    for position in range(len(data)):
        identifier.feed(memoryview(data)[position : position + 1])
        known += identifier.StudyInstanceUID == "1.2.3"
    assert known > len(data) // 4 or syntax == DeflatedExplicitVRLittleEndian
    assert identifier.finish() == identify(data, syntax, LIMIT)


@settings(max_examples=400)
@given(st.data())
def test_data_set_cut_anywhere_is_never_taken_for_whole(data: st.DataObject) -> None:
    syntax, original = data.draw(st.sampled_from(encodings()))
    end = data.draw(st.integers(0, len(original) - 1))
    found = answer(original[:end], syntax)
    if isinstance(found, Identity):  # cut between two elements after the last UID: nothing tells it from a whole one
        if syntax == DeflatedExplicitVRLittleEndian:
            assert end == len(original) - 1  # the padding behind the stream
            return
        group = struct.unpack_from(">H" if syntax == ExplicitVRBigEndian else "<H", original, end)[0]
        assert group in (0x0020, 0x0028, 0x0040, 0x7FE0)
    else:
        assert found in (MalformedDataSet, IdentityMismatch)


@pytest.mark.parametrize("end", [1, 7, 8, 9, 100, -1, -7, -8, -9])
def test_cut_encapsulated_pixels_are_malformed(end: int) -> None:
    assert isinstance(answer(fragments(), JPEGBaseline8Bit), Identity)
    assert answer(fragments()[:end], JPEGBaseline8Bit) in (MalformedDataSet, IdentityMismatch)


@given(
    st.text(min_size=1, max_size=30),
    st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", "ISO 2022 IR 149", "GB18030", "junk", "\x1b"]),
)
def test_patient_id_in_any_character_set_is_text_and_the_same_text_each_time(text: str, terms: str) -> None:
    def element(number: int, vr: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return struct.pack("<HH2sH", 0x0010 if number > 0x1F else 0x0008, number, vr, len(value)) + value

    raw = [element(0x05, b"CS", terms.encode()), element(0x16, b"UI", b"1.2"), element(0x18, b"UI", b"1.2.3.1")]
    raw += [element(0x20, b"LO", text.encode("utf-8", "replace"))]
    raw += [struct.pack("<HH2sH", 0x0020, number, b"UI", 4) + b"1.2\0" for number in (0x0D, 0x0E)]
    first, second = (identify(b"".join(raw), ExplicitVRLittleEndian, LIMIT) for _ in range(2))
    assert first == second
    first.PatientID.encode()  # no lone surrogates, which no pseudonym could be made of


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_files_have_the_identity_that_pydicom_reads(path: Path) -> None:
    part10 = path.read_bytes()
    meta = read_file_meta(part10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files that are broken on purpose
        expected = pydicom.dcmread(path, stop_before_pixels=True)
    found = answer(part10[meta.offset :], meta.transfer_syntax_uid)
    if "SOPInstanceUID" not in expected or "StudyInstanceUID" not in expected:
        assert found in (IdentityMismatch, MalformedDataSet)
    elif isinstance(found, Identity):
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            assert getattr(found, keyword) == str(expected[keyword].value)
        assert found.PatientID == str(expected.get("PatientID") or "").strip()
    else:
        assert path.name in BROKEN, found


def test_deflate_bomb_is_bounded() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = bomb.compress(bytes(64 << 20)) + bomb.flush()
    assert len(raw) < 100_000
    assert answer(raw, DeflatedExplicitVRLittleEndian).__name__ == "ObjectTooLarge"
