"""Attributes: what rules see of an element is the same text in every encoding, bounded, and harms no image."""

from __future__ import annotations

import struct

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from support.rooms import encoded, small

from radnode.attributes import MAX_CHARACTERS, Attributes
from radnode.elements import MAX_VALUE
from radnode.identify import Identifier, identify

LIMIT = 1 << 24
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def seen(dataset: Dataset, *keywords: str, syntax: str = ExplicitVRLittleEndian) -> list[str]:
    found = identify(encoded(dataset, syntax), syntax, LIMIT, Attributes(keywords)).attributes
    assert list(found) == list(keywords)
    return list(found.values())


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_text_is_the_same_in_every_transfer_syntax(syntax: str) -> None:
    dataset = small(Rows=512, ImageType=["ORIGINAL", "PRIMARY"], SliceThickness="2.50", PixelSpacing=["0.5", "0.5"])
    dataset.EchoTime = 3
    wanted = ("Modality", "Rows", "ImageType", "SliceThickness", "PixelSpacing", "StudyInstanceUID", "BodyPartExamined")
    expected = ["CT", "512", "ORIGINAL\\PRIMARY", "2.5", "0.5\\0.5", "1.2.3", ""]
    found = seen(dataset, *wanted, syntax=syntax)
    assert [found[0], *found[1:3], *found[4:]] == [expected[0], *expected[1:3], *expected[4:]]
    assert found[3] in ("2.5", "2.50")


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        ("ISO_IR 192", "胸部 X線 Thorax"),
        ("ISO_IR 100", "Röntgen Thorax"),
        ("ISO_IR 144", "грудь"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ"),
        (["", "ISO 2022 IR 87"], "胸部"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "흉부"),
        ("GB18030", "胸部"),
    ],
)
def test_text_is_decoded_by_its_character_set(character_set: object, text: str) -> None:
    dataset = small(SpecificCharacterSet=character_set, StudyDescription=text)
    assert seen(dataset, "StudyDescription") == [text]


@pytest.mark.parametrize("value", [b"\xff\xfe broken ", b"\x1b$Z escape", b"\x1b", b"\x1b$B\xff\xff"])
def test_text_that_does_not_decode_is_latin_1_and_nobody_is_told(value: bytes) -> None:
    values = {"SpecificCharacterSet": b"ISO_IR 192", "StudyDescription": value}
    assert Attributes(["StudyDescription"]).text(values, "<") == {
        "StudyDescription": value.decode("latin-1").strip(" \0")
    }


def test_value_is_cut_and_an_image_with_a_long_one_is_kept() -> None:
    dataset = small(ImageComments="A" * 9000)
    assert seen(dataset, "ImageComments") == ["A" * MAX_CHARACTERS]


def test_first_of_an_element_that_stands_twice_counts_and_it_is_no_error() -> None:
    first, second = (struct.pack("<HH2sH", 8, 0x1030, b"LO", 2) + text for text in (b"A ", b"B "))
    raw = encoded(small())
    place = raw.index(struct.pack("<HH", 0x10, 0x10))
    found = identify(raw[:place] + first + second + raw[place:], ExplicitVRLittleEndian, LIMIT, WANTED)
    assert found.attributes == {"StudyDescription": "A"}


def test_element_within_a_sequence_does_not_count() -> None:
    nested = Dataset()
    nested.StudyDescription = "NESTED"
    assert seen(small(RequestAttributesSequence=[nested]), "StudyDescription") == [""]


@pytest.mark.parametrize("length", [1, 7, MAX_VALUE - 1, MAX_VALUE, MAX_VALUE + 1, 5000])
def test_pieces_do_not_change_what_is_seen(length: int) -> None:
    raw = encoded(small(StudyDescription="CT", ImageComments="ab" * length))
    wanted = Attributes(["StudyDescription", "ImageComments", "Modality"])
    whole = identify(raw, ExplicitVRLittleEndian, LIMIT, wanted)
    assert whole.attributes["ImageComments"] == ("ab" * length)[:MAX_CHARACTERS]
    for size in (1, 13, 1024):
        identifier = Identifier(ExplicitVRLittleEndian, LIMIT, wanted)
        for start in range(0, len(raw), size):
            identifier.feed(memoryview(raw)[start : start + size])
        assert identifier.finish() == whole


def test_cut_number_is_left_out() -> None:
    assert Attributes(["Rows"]).text({"Rows": b"\x00\x02\x01"}, "<") == {"Rows": "512"}


@pytest.mark.parametrize(
    "keyword", ["", "Modalty", "PixelData", "RequestAttributesSequence", "SmallestImagePixelValue"]
)
def test_element_without_a_value_to_compare_is_refused(keyword: str) -> None:
    with pytest.raises(ValueError, match=r"keyword|VR"):
        Attributes([keyword])


WANTED = Attributes(["StudyDescription"])
