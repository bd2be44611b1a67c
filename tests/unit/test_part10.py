"""File Meta Information: read as pydicom reads it, and never past its bounds."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from support.network import sample, small_object

from radnode.errors import MalformedDataSet
from radnode.part10 import read_file_meta


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "reportsi.dcm"])
def test_agrees_with_pydicom(name):
    meta = read_file_meta(sample(name))
    expected = dcmread(get_testdata_file(name)).file_meta
    assert meta.sop_class_uid == expected.MediaStorageSOPClassUID
    assert meta.sop_instance_uid == expected.MediaStorageSOPInstanceUID
    assert meta.transfer_syntax_uid == expected.TransferSyntaxUID


@given(st.integers(0, 400))
def test_a_cut_object_is_malformed_or_still_whole(length):
    part10 = small_object()
    with contextlib.suppress(MalformedDataSet):
        assert read_file_meta(part10[:length]).offset <= length


@given(st.binary(max_size=100))
def test_junk_is_only_ever_malformed(junk):
    with contextlib.suppress(MalformedDataSet):
        read_file_meta(bytes(128) + b"DICM\x02\x00" + junk)
