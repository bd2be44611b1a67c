"""A report carries patient and study exactly as its source does, however sloppy that is."""

from __future__ import annotations

import io
import warnings

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from support import films
from support.analyses import ANALYSES, report
from support.report_checks import problems

from radnode.report.sr import encode_report

CHARACTER_SETS = [films.LATIN, films.JAPANESE, films.KOREAN, films.GB18030, films.UTF_8, films.NO_CHARACTER_SET]
NAMES = ["latin", "japanese", "korean", "chinese", "utf8", "none"]


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(encode_report(dataset)))


def raw(dataset: Dataset, keyword: str) -> bytes | None:
    item = dataset.get_item(keyword)
    assert isinstance(item, RawDataElement)
    return item.value


def with_raw(dataset: Dataset, **values: bytes) -> Dataset:
    """The header with these values as their bytes came, unread."""
    for keyword, value in values.items():
        tag = Tag(keyword)
        VR = pydicom.datadict.dictionary_VR(tag)
        dataset[tag] = RawDataElement(tag, VR, len(value), value, 0, False, True)
    return dataset


@pytest.mark.parametrize("names", CHARACTER_SETS, ids=NAMES)
def test_name_keeps_its_bytes_and_character_set(names: dict[str, object]) -> None:
    source = films.received(films.fresh(films.OPACITY, **names))
    result = reread(report(source))
    assert raw(result, "PatientName") == raw(source, "PatientName")
    assert result.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
    assert str(result.PatientName) == names["PatientName"]


@pytest.mark.parametrize("names", CHARACTER_SETS, ids=NAMES)
def test_name_survives_when_source_and_report_were_read_before(names: dict[str, object]) -> None:
    source = films.received(films.fresh(films.OPACITY, StudyDescription="plain", **names))
    untouched = encode_report(report(source))
    assert str(source.PatientName) == names["PatientName"]
    result = report(source)
    assert str(result.PatientName) == names["PatientName"]
    assert encode_report(result) == untouched


def test_name_made_in_memory_is_encoded_as_it_would_be_sent() -> None:
    source = films.fresh(films.OPACITY, StudyDescription="Röntgen", **films.LATIN)
    source.RequestAttributesSequence = Sequence([Dataset()])
    source.RequestAttributesSequence[0].RequestedProcedureDescription = "Röntgen"
    source.OtherPatientIDsSequence = Sequence([Dataset()])
    source.OtherPatientIDsSequence[0].PatientID = "é1"
    result = reread(report(source))
    assert result.PatientName == "Müller^Jörg"
    assert result.StudyDescription == "Röntgen"
    assert result.ReferencedRequestSequence[0].RequestedProcedureDescription == "Röntgen"
    assert result.OtherPatientIDsSequence[0].PatientID == "é1"


@pytest.mark.parametrize("analysis", ANALYSES.values(), ids=list(ANALYSES))
def test_a_header_with_next_to_nothing_makes_a_report(analysis) -> None:
    source = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(source, keyword, pydicom.dcmread(films.OPACITY)[keyword].value)
    result = reread(report(source, analysis))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        assert result[keyword].is_empty
    for keyword in ("AccessionNumber", "StudyID", "ReferringPhysicianName"):
        assert result[keyword].is_empty
    assert "ReferencedRequestSequence" not in result
    assert problems(result) == []


@pytest.mark.parametrize(
    "values",
    [
        {"PatientName": b"O'Neil%s%n^<x>&\r\nFORGED", "PatientID": b"\x00\xff\x1b$B junk"},
        {"PatientSex": b"FEMALE OR SO", "PatientBirthDate": b"1.4.1980", "PatientAge": b"about 40"},
        {"StudyDate": b"2020-01-01", "StudyTime": b"noon", "StudyID": b"x" * 400, "AccessionNumber": b"\\" * 30},
        {"PatientWeight": b"heavy", "PatientSize": b"1,80", "PregnancyStatus": b"\x01", "InstanceNumber": b"first"},
        {"OtherPatientIDsSequence": b"\x00\x01\x02 no sequence", "RequestAttributesSequence": b"\xfe\xff\x00\xe0\xff"},
        {"ReferencedStudySequence": b"\xfe\xff\x00\xe0\x20\x00\x00\x00\x08\x00\x50\x11UI\xff\xff1.2"},
        {"PatientComments": b"x" * 70001},
    ],
    ids=lambda values: next(iter(values)),
)
def test_values_that_no_vr_allows_are_carried_or_left_out_but_never_fail(values: dict[str, bytes]) -> None:
    source = with_raw(films.received(films.fresh(films.OPACITY)), **values)
    blob = encode_report(report(source))
    result = pydicom.dcmread(io.BytesIO(blob))
    for keyword, value in values.items():
        if keyword in result and not keyword.endswith("Sequence") and keyword != "InstanceNumber":
            assert (raw(result, keyword) or b"").startswith(value)
    assert problems(result) == []


@pytest.mark.parametrize("charset", [b"ISO_IR 999", b"ISO 2022 IR 87\\ISO_IR 192", b"\xff\xfe", b"\\\\", b"latin1"])
def test_a_character_set_nobody_knows_is_carried_with_the_name(charset: bytes) -> None:
    name = "山田^太郎".encode("utf-16-be")
    source = with_raw(films.received(films.fresh(films.OPACITY)), SpecificCharacterSet=charset, PatientName=name)
    blob = encode_report(report(source))
    assert name in blob
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about the character set, on reading
        result = pydicom.dcmread(io.BytesIO(blob))
    assert problems(result) == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_transfer_syntaxes_give_the_same_report(syntax) -> None:
    source = films.fresh(films.NORMAL, PregnancyStatus=3, **films.LATIN)
    source.OtherPatientIDsSequence = Sequence([Dataset()])
    source.OtherPatientIDsSequence[0].PatientID = "ä2"
    source.OtherPatientIDsSequence[0].TypeOfPatientID = "TEXT"
    source.PatientSpeciesCodeSequence = Sequence([])
    expected = encode_report(report(films.received(source)))
    del source.PixelData
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(buffer, source, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    buffer.seek(0)
    assert encode_report(report(pydicom.dcmread(buffer))) == expected


def test_a_bomb_of_nested_sequences_is_left_out() -> None:
    level = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x10\x00\x02\x10SQ\x00\x00\xff\xff\xff\xff"
    source = with_raw(films.received(films.fresh(films.OPACITY)), OtherPatientIDsSequence=level * 3000)
    assert problems(reread(report(source))) == []


def test_a_private_element_with_a_vr_of_its_own_becomes_unknown() -> None:
    inside = b"\x09\x00\x10\x00LO\x02\x00ME" + b"\x09\x00\x01\x10XX\x02\x00AB"
    value = b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
    source = with_raw(films.received(films.fresh(films.OPACITY)), OtherPatientIDsSequence=value)
    item = reread(report(source)).OtherPatientIDsSequence[0][0x00091001]
    assert (item.VR, item.value) == ("UN", b"AB")


def test_request_and_accession_are_carried() -> None:
    source = films.fresh(films.OPACITY, AccessionNumber="A1")
    assert reread(report(films.received(source))).ReferencedRequestSequence[0].AccessionNumber == "A1"
    item = Dataset()
    item.AccessionNumber, item.RequestedProcedureID = "A2", "P7"
    source.RequestAttributesSequence = Sequence([item])
    (request,) = reread(report(films.received(source))).ReferencedRequestSequence
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("A2", "P7")
    assert request.StudyInstanceUID == source.StudyInstanceUID
    assert request["PlacerOrderNumberImagingServiceRequest"].is_empty


def test_a_sequence_sent_as_unknown_is_read_as_implicit() -> None:
    tag = Tag("OtherPatientIDsSequence")
    inside = b"\x10\x00\x20\x00\x02\x00\x00\x00P2"
    value = b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
    source = films.received(films.fresh(films.OPACITY))
    source[tag] = RawDataElement(tag, "UN", len(value), value, 0, False, True)
    assert reread(report(source)).OtherPatientIDsSequence[0].PatientID == "P2"


def test_nesting_without_end_is_cut() -> None:
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.OtherPatientIDsSequence = Sequence([inner])
        inner = outer
    source = films.fresh(films.OPACITY)
    source.OtherPatientIDsSequence = inner.OtherPatientIDsSequence
    assert problems(reread(report(films.received(source)))) == []


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [("PatientAge", "62", False), ("PatientAge", "062Y", True), ("PatientWeight", "70 kg", False)],
)
def test_descriptive_values_that_their_vr_forbids_are_left_out(keyword: str, value: str, kept: bool) -> None:
    source = films.received(films.fresh(films.OPACITY))
    tag = tag_for_keyword(keyword)
    encoded = value.encode() + b" " * (len(value) % 2)
    source[tag] = RawDataElement(Tag(tag), dictionary_VR(tag), len(encoded), encoded, 0, False, True)
    assert (keyword in report(source)) is kept


def test_identifying_values_are_copied_whatever_their_vr_forbids() -> None:
    source = films.received(films.fresh(films.OPACITY))
    source[0x00100040] = RawDataElement(Tag(0x00100040), "CS", 4, b"male", 0, False, True)
    assert report(source).get_item(0x00100040).value == b"male"
