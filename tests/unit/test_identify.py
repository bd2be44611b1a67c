"""identify: every trick with lengths, nesting and repetition has its answer, at a bounded price."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib

import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from support import films
from support.rooms import encoded, small

from radnode import elements
from radnode import identify as module
from radnode.elements import MAX_DEPTH, MAX_ELEMENTS
from radnode.errors import IdentityMismatch, InvalidUID, MalformedDataSet, ObjectTooLarge
from radnode.identify import check_uid, identify
from radnode.part10 import read_file_meta

LIMIT = 1 << 24
UNDEFINED = 0xFFFFFFFF
END_ITEM = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
END_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


def sequence(content: bytes, length: int | None = None, tag: tuple[int, int] = (0x0040, 0x0275)) -> bytes:
    return struct.pack("<HH2s2xI", *tag, b"SQ", len(content) if length is None else length) + content


def implicit(content: bytes, tag: tuple[int, int] = (0x0040, 0x0275)) -> bytes:
    return struct.pack("<HHI", *tag, len(content)) + content


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


GOOD = encoded(small())


def read(data: bytes, syntax: str = ExplicitVRLittleEndian) -> module.Identity:
    return identify(data, syntax, LIMIT)


def test_nesting_up_to_the_limit_is_read_and_beyond_is_malformed() -> None:
    for undefined in (True, False):
        for depth, fine in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False), (5000, False)):
            content = b""
            for _ in range(min(depth, 200) if not undefined else depth):
                content = (
                    sequence(item(content, UNDEFINED) + END_ITEM, UNDEFINED) + END_SEQUENCE
                    if undefined
                    else sequence(item(content))
                )
            if fine:
                assert read(GOOD + content).PatientID == "SECRET-1"
            else:
                with pytest.raises(MalformedDataSet, match="nested deeper"):
                    read(GOOD + content)


def test_nesting_is_bounded_where_implicit_vr_hides_it() -> None:
    good, content = encoded(small(), ImplicitVRLittleEndian), b""
    for depth in range(1, 100):
        content = implicit(item(content))
        if depth <= MAX_DEPTH:
            assert read(good + content, ImplicitVRLittleEndian).PatientID == "SECRET-1"
        else:
            with pytest.raises(MalformedDataSet, match="nested deeper"):
                read(good + content, ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    "tail",
    [
        sequence(b"", 8),  # longer than the data
        sequence(item(b"", 8)),  # item longer than its sequence
        sequence(item(element(0x0008, 0x0050, b"SH", b"1234"), 8), 20),  # element longer than its item
        sequence(item(element(0x0008, 0x0050, b"SH", b"1234")), 15),
        sequence(item(element(0x0008, 0x0050, b"SH", b"12"), UNDEFINED), 8 + 10) + END_ITEM,  # ends after its sequence
        sequence(item(b"", UNDEFINED), UNDEFINED),  # never ends
        sequence(item(b"", UNDEFINED) + END_SEQUENCE, UNDEFINED),  # the wrong end
        sequence(element(0x0008, 0x0050, b"SH", b"1234")),  # no item
        END_ITEM,
        END_SEQUENCE,
        item(b""),
        element(0x0008, 0x0050, b"ZZ", b"12"),
        struct.pack("<HH2s2xI", 0x0009, 0x0010, b"OB", UNDEFINED),  # undefined length of what is no sequence
        struct.pack("<HH2s2xI", 0x0009, 0x0010, b"OB", 0xFFFFFFFE) + b"1234",  # claims 4 GiB
    ],
)
def test_lying_lengths_are_malformed(tail: bytes) -> None:
    with pytest.raises(MalformedDataSet):
        read(GOOD + tail)


def test_lying_lengths_are_malformed_in_implicit_vr() -> None:
    good = encoded(small(), ImplicitVRLittleEndian)
    for content in (item(b"", 100), item(struct.pack("<HHI", 0x0008, 0x0050, 100))):
        with pytest.raises(MalformedDataSet):
            read(good + implicit(content), ImplicitVRLittleEndian)


def test_sequence_in_an_un_element_of_undefined_length_is_implicit() -> None:
    inner = struct.pack("<HHI", 0x0008, 0x0050, 4) + b"1234"
    wrapped = struct.pack("<HH2s2xI", 0x0009, 0x1001, b"UN", UNDEFINED) + item(inner) + END_SEQUENCE
    assert read(GOOD + wrapped).PatientID == "SECRET-1"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "PatientID", "StudyInstanceUID", "SpecificCharacterSet"])
def test_identifying_element_twice_is_malformed_even_with_the_same_value(keyword: str) -> None:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    twice = element(tag >> 16, tag & 0xFFFF, b"LO", b"1.2.3.1\0")
    with pytest.raises(MalformedDataSet, match="twice"):
        read(GOOD + twice + twice)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_missing_or_empty_uid_is_identity_mismatch_and_says_which(keyword: str) -> None:
    for change in (lambda data: data.__delattr__(keyword), lambda data: setattr(data, keyword, "")):
        dataset = small()
        change(dataset)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        raw = pydicom.filebase.DicomBytesIO()
        raw.is_little_endian, raw.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(raw, dataset)
        with pytest.raises(IdentityMismatch, match=keyword):
            read(raw.getvalue())


@pytest.mark.parametrize(
    "uid", ["../../etc/passwd", "1.2.a", "1..2", ".1", "1.", "1 2", "1" * 65, "1.2\n", "\u0661.2", ""]
)
def test_uid_that_is_none_is_invalid(uid: str) -> None:
    with pytest.raises(InvalidUID):
        check_uid(uid)


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.1", "1.02.3", "9" * 64])
def test_uid_of_digits_and_dots_passes_leading_zeros_too(uid: str) -> None:
    assert check_uid(uid) == uid


def test_path_in_a_uid_of_the_data_set_is_invalid() -> None:
    with pytest.raises(InvalidUID):
        read(GOOD.replace(b"1.2.3.1\0", b"../../e\0"))


def test_too_many_elements_are_too_large_quickly() -> None:
    started = time.process_time()
    with pytest.raises(ObjectTooLarge, match="elements"):
        read(GOOD + element(0x0009, 0x0010, b"LO", b"") * (MAX_ELEMENTS + 1))
    with pytest.raises(ObjectTooLarge, match="elements"):
        read(GOOD + sequence(item(b"") * 1_000_000))
    assert time.process_time() - started < 15


def test_two_patients_whose_ids_do_not_decode_stay_two() -> None:
    found = set()
    for raw in (b"\xc2\xff", b"\xc3\xff", b"\x1b$)C\xff\xff", b"\x1b$)C\xfe\xff"):
        data = small(SpecificCharacterSet="ISO 2022 IR 149", PatientID="XX" if len(raw) == 2 else "XXXXXX")
        marker = b"XX" if len(raw) == 2 else b"XXXXXX"
        found.add(read(encoded(data).replace(marker, raw)).PatientID)
    assert len(found) == 4


def test_same_patient_in_two_character_sets_is_one() -> None:
    found = {
        read(encoded(small(SpecificCharacterSet=terms, PatientID="M\u00fc-1"))).PatientID
        for terms in ("ISO_IR 100", "ISO_IR 192")
    }
    assert found == {"M\u00fc-1"}


def test_deflate_bomb_and_cut_stream_cost_no_memory() -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeeze.compress(bytes(256 << 20)) + squeeze.flush()
    code = (
        "import resource, sys; from radnode.identify import identify; from radnode.errors import ObjectTooLarge\n"
        f"before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; raw = sys.stdin.buffer.read()\n"
        f"try: identify(raw, {DeflatedExplicitVRLittleEndian!r}, 1 << 22)\n"
        "except ObjectTooLarge: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], input=bomb, capture_output=True, check=True)
    assert int(answer.stdout) < 32 << 10  # KiB


def squeezed(zeros: int) -> bytes:
    """A deflated data set whose Pixel Data are so many zeros."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [squeeze.compress(GOOD + struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", zeros))]
    parts += [squeeze.compress(bytes(1 << 20)) for _ in range(zeros >> 20)]
    return b"".join(parts) + squeeze.flush()


def test_deflate_bomb_is_given_up_long_before_the_limit_on_objects() -> None:
    bomb = squeezed(512 << 20)
    assert len(bomb) < 1 << 20
    with pytest.raises(ObjectTooLarge):
        identify(bomb, DeflatedExplicitVRLittleEndian, 2 << 30)


def test_blank_image_is_no_bomb_and_a_long_data_set_may_be_256_times_its_size() -> None:
    assert identify(squeezed(48 << 20), DeflatedExplicitVRLittleEndian, 2 << 30) == read(GOOD)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    frame = os.urandom(5000) + bytes((1 << 20) - 5000)  # deflates 170:1
    data = squeeze.compress(GOOD + struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 100 << 20))
    data += b"".join(squeeze.compress(frame) for _ in range(100)) + squeeze.flush()
    assert identify(data, DeflatedExplicitVRLittleEndian, 2 << 30) == read(GOOD)


def test_sequences_are_those_of_pydicoms_dictionary() -> None:
    tags = [*DicomDictionary, *(0x50002600 + (group << 16) for group in range(256)), 0x00091001, 0x60003000, 0x50000010]
    for tag in tags:
        try:
            expected = dictionary_VR(tag) == "SQ"
        except KeyError:
            expected = False
        assert (tag in elements._SEQUENCES) == expected, hex(tag)


def test_elements_that_no_dictionary_knows_cost_no_more_than_others() -> None:
    count = 100_000

    def seconds(content: bytes) -> float:
        """The time of a data set of elements of ever other tags with this content, all in implicit VR."""
        parts = (struct.pack("<HHI", 0x5000 + 2 * (n >> 15), n & 0x7FFF, 8) + content for n in range(count))
        data = encoded(small(), ImplicitVRLittleEndian) + b"".join(parts)
        started = time.process_time()
        identify(data, ImplicitVRLittleEndian, LIMIT)
        return time.process_time() - started

    assert min(seconds(item(b"")) for _ in range(3)) < 5 * min(seconds(bytes(8)) for _ in range(3))


def test_data_set_with_trailing_junk_is_malformed() -> None:
    for junk in (b"\0", b"\0" * 7, b"junk behind the end"):
        with pytest.raises(MalformedDataSet):
            read(GOOD + junk)


def test_real_images_are_identified_in_milliseconds() -> None:
    for path in (films.CT[0], films.OPACITY):
        part10 = path.read_bytes()
        meta = read_file_meta(part10)
        started = time.process_time()
        for _ in range(10):
            identify(memoryview(part10)[meta.offset :], meta.transfer_syntax_uid, LIMIT)
        assert (time.process_time() - started) / 10 < 0.05


def test_ten_thousand_fragments_are_walked() -> None:
    part10 = films.file_bytes(films.undecodable(films.CT[0]))
    data = part10[read_file_meta(part10).offset :].removesuffix(END_SEQUENCE) + item(b"12") * 10_000 + END_SEQUENCE
    assert identify(data, JPEGBaseline8Bit, LIMIT)


def enhanced(frames: int) -> bytes:
    """An enhanced multi-frame CT as its per-frame functional groups make it large."""

    def group(**elements: object) -> pydicom.Dataset:
        found = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(found, keyword, value)
        return found

    groups = [
        group(
            FrameContentSequence=[group(StackID="1", InStackPositionNumber=frame, DimensionIndexValues=[1, frame])],
            PlanePositionSequence=[group(ImagePositionPatient=[0, 0, frame])],
            PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[group(PixelSpacing=[0.5, 0.5], SliceThickness=1)],
            CTAcquisitionDetailsSequence=[group(RotationDirection="CW", RevolutionTime=0.5)],
        )
        for frame in range(1, frames + 1)
    ]
    return encoded(small(NumberOfFrames=frames, PerFrameFunctionalGroupsSequence=groups))


def test_enhanced_multi_frame_data_set_is_identified_in_milliseconds() -> None:
    data = enhanced(500)
    started = time.process_time()
    assert read(data).PatientID == "SECRET-1"
    assert time.process_time() - started < 1
