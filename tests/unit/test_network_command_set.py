"""Command sets: what pynetdicom writes is read, what is written pydicom reads, and junk is only ever one error."""

from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from radnode.network.command_set import NO_DATA_SET, CommandSet, MalformedCommand, Tag, encode, response


def test_reads_the_c_store_that_pynetdicom_writes():
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 42, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    primitive.DataSet = BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    [*fragments] = message.encode_msg(1, 16384)
    command = CommandSet.parse(fragments[0].presentation_data_value_list[0][1][1:])
    assert command.ushort(Tag.COMMAND_FIELD) == 1
    assert command.ushort(Tag.MESSAGE_ID) == 42
    assert command.uid(Tag.AFFECTED_SOP_INSTANCE_UID) == "1.2.3"
    assert command.has_data_set


def test_pydicom_reads_the_response():
    request = CommandSet.parse(
        encode(
            {
                Tag.COMMAND_FIELD: 1,
                Tag.MESSAGE_ID: 9,
                Tag.COMMAND_DATA_SET_TYPE: 1,
                Tag.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2",
                Tag.AFFECTED_SOP_INSTANCE_UID: "1.2.34",
            }
        )
    )
    encoded = response(request, 0xA700)
    data_set = read_dataset(BytesIO(encoded), is_implicit_VR=True, is_little_endian=True)
    assert data_set.CommandGroupLength == len(encoded) - 12
    assert (data_set.CommandField, data_set.MessageIDBeingRespondedTo, data_set.Status) == (0x8001, 9, 0xA700)
    assert data_set.CommandDataSetType == NO_DATA_SET
    assert data_set.AffectedSOPInstanceUID == "1.2.34"


@pytest.mark.parametrize(
    "encoded",
    [
        b"\0" * 7,
        b"\0\0\0\1\xff\xff\xff\xff",
        b"\x08\0\0\1\0\0\0\0",
        b"\0\0\x10\1\0\0\0\0\0\0\0\1\0\0\0\0",
        b"\0\0\0\1\0\0\0\0" * 2,
    ],
)
def test_junk_is_malformed(encoded):
    with pytest.raises(MalformedCommand):
        CommandSet.parse(encoded)


@pytest.mark.parametrize("uid", ["", "1.2/3", "../x", "a", "1" * 65, "1.2\0.3", "1.2\n"])
def test_what_is_no_uid_is_none(uid):
    assert CommandSet.parse(encode({Tag.AFFECTED_SOP_CLASS_UID: uid})).uid(Tag.AFFECTED_SOP_CLASS_UID) is None


def test_absent_or_odd_number_is_malformed():
    with pytest.raises(MalformedCommand, match="STATUS"):
        CommandSet.parse(encode({Tag.STATUS: "1.2"})).ushort(Tag.STATUS)


@given(st.binary(max_size=200))
def test_parse_never_raises_anything_else(encoded):
    with contextlib.suppress(MalformedCommand):
        command = CommandSet.parse(encoded)
        command.uid(Tag.AFFECTED_SOP_CLASS_UID)
        command.ushort(Tag.COMMAND_FIELD)


@given(
    st.dictionaries(
        st.sampled_from([Tag.AFFECTED_SOP_CLASS_UID, Tag.AFFECTED_SOP_INSTANCE_UID]),
        st.from_regex(r"[1-9][0-9.]{0,62}", fullmatch=True),
    ),
    st.integers(0, 65535),
)
def test_what_is_written_is_read(uids, message_id):
    command = CommandSet.parse(encode({Tag.MESSAGE_ID: message_id, **uids}))
    assert command.ushort(Tag.MESSAGE_ID) == message_id
    assert {tag: command.uid(tag) for tag in uids} == uids
