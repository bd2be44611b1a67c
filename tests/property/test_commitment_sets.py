"""Storage Commitment data sets: pydicom is the other side, and no bytes make the reader do more than refuse."""

from __future__ import annotations

import struct
import time
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from radnode import commitment_sets
from radnode.commitment_sets import EXPLICIT, IMPLICIT, MAX_BYTES, MAX_REFERENCES
from radnode.errors import InputError, MalformedDataSet, ObjectTooLarge
from radnode.model import CommitmentReport, CommitmentRequest, FailedReference, Reference

SYNTAXES = st.sampled_from([IMPLICIT, EXPLICIT])
UIDS = st.from_regex(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){1,5}", fullmatch=True)
REFERENCES = st.builds(Reference, UIDS, UIDS)
REQUESTS = st.builds(CommitmentRequest, UIDS, st.lists(REFERENCES, min_size=1, max_size=5).map(tuple))
FAILURES = st.builds(FailedReference, REFERENCES, st.integers(0, 65535))
REPORTS = st.builds(
    CommitmentReport, UIDS, st.lists(REFERENCES, max_size=4).map(tuple), st.lists(FAILURES, max_size=4).map(tuple)
)


def items(references, reasons=()) -> Sequence:
    found = []
    for place, reference in enumerate(references):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.SOPClassUID, reference.SOPInstanceUID
        if reasons:
            item.FailureReason = reasons[place]
        found.append(item)
    return Sequence(found)


def by_pydicom(dataset: Dataset, syntax: str, *, undefined: bool) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@given(REQUESTS, SYNTAXES)
def test_request_that_is_written_is_read_by_pydicom_and_by_us(request_, syntax):
    encoded = commitment_sets.write_request(request_, syntax)
    assert commitment_sets.read_request(encoded, syntax) == request_
    dataset = read_dataset(BytesIO(encoded), syntax == IMPLICIT, True)
    assert dataset.TransactionUID == request_.TransactionUID
    named = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in dataset.ReferencedSOPSequence]
    assert named == [(item.SOPClassUID, item.SOPInstanceUID) for item in request_.references]


@given(REQUESTS, SYNTAXES, st.booleans())
def test_request_of_pydicom_is_read_whatever_else_it_holds(request_, syntax, undefined):
    dataset = Dataset()
    dataset.TransactionUID = request_.TransactionUID
    dataset.StorageMediaFileSetID = "SET"
    dataset.ReferencedSOPSequence = items(request_.references)
    for item in dataset.ReferencedSOPSequence:
        item.PurposeOfReferenceCodeSequence = items(request_.references)
        item.StorageMediaFileSetID = "SET"
    encoded = by_pydicom(dataset, syntax, undefined=undefined)
    assert commitment_sets.read_request(encoded, syntax) == request_


@given(REPORTS, SYNTAXES)
def test_report_that_is_written_is_read_by_pydicom_and_by_us(report, syntax):
    encoded = commitment_sets.write_report(report, syntax)
    assert commitment_sets.read_report(encoded, syntax) == report
    dataset = read_dataset(BytesIO(encoded), syntax == IMPLICIT, True)
    assert [item.FailureReason for item in dataset.get("FailedSOPSequence", [])] == [
        item.reason for item in report.failed
    ]
    assert ("ReferencedSOPSequence" in dataset) == bool(report.committed)


@given(REPORTS, SYNTAXES, st.booleans())
def test_report_of_pydicom_is_read(report, syntax, undefined):
    dataset = Dataset()
    dataset.TransactionUID = report.TransactionUID
    dataset.RetrieveAETitle = "PACS"
    dataset.ReferencedSOPSequence = items(report.committed)
    dataset.FailedSOPSequence = items(
        [item.reference for item in report.failed], [item.reason for item in report.failed]
    )
    encoded = by_pydicom(dataset, syntax, undefined=undefined)
    assert commitment_sets.read_report(encoded, syntax) == report


@given(REQUESTS, SYNTAXES, st.data())
def test_damaged_request_is_read_or_refused_and_never_more(request_, syntax, data):
    encoded = bytearray(commitment_sets.write_request(request_, syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = commitment_sets.read_request(bytes(encoded), syntax)
    except InputError:
        return
    assert found.references


@given(st.binary(max_size=300), SYNTAXES)
def test_any_bytes_are_refused_or_read(encoded, syntax):
    for read in (commitment_sets.read_request, commitment_sets.read_report):
        try:
            read(encoded, syntax)
        except InputError:
            continue


@given(REQUESTS, SYNTAXES, st.integers(0))
def test_request_that_is_cut_off_is_refused(request_, syntax, cut):
    encoded = commitment_sets.write_request(request_, syntax)
    with pytest.raises(InputError):
        commitment_sets.read_request(encoded[: cut % len(encoded)], syntax)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_largest_request_is_read_and_one_more_reference_is_over_the_limit(syntax):
    references = tuple(Reference("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}") for number in range(MAX_REFERENCES))
    encoded = commitment_sets.write_request(CommitmentRequest("1.2.3", references), syntax)
    assert len(commitment_sets.read_request(encoded, syntax).references) == MAX_REFERENCES
    with pytest.raises(ObjectTooLarge):
        commitment_sets.read_request(
            commitment_sets.write_request(CommitmentRequest("1.2.3", (*references, references[0])), syntax), syntax
        )


def test_flat_and_nested_floods_end_at_the_limits_at_once():
    began = time.process_time()
    with pytest.raises(ObjectTooLarge):
        commitment_sets.read_request(struct.pack("<HHI", 9, 1, 0) * (MAX_BYTES // 8), IMPLICIT)
    with pytest.raises(ObjectTooLarge):
        commitment_sets.read_request(bytes(MAX_BYTES + 1), IMPLICIT)
    opened = struct.pack("<HHIHHI", 9, 1, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(MalformedDataSet):
        commitment_sets.read_request(opened * 10_000, IMPLICIT)
    assert time.process_time() - began < 5
