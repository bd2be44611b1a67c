"""Breaches of PS3.8 are aborted at once, with the source and reason of its state machine."""

from __future__ import annotations

import re
import struct
import time

import pytest
from support.network import (
    abort,
    associated,
    echo_milliseconds,
    pdata,
    read_pdu,
    request_pdu,
    until,
    value,
)

from radnode.network.command_set import NO_DATA_SET, Tag, encode


@pytest.mark.parametrize(
    ("sent", "answer", "rule"),
    [
        (b"\x09\x00\x00\x00\x00\x04abcd", (0, 0), "pdu_unrecognized"),
        (b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03", (0, 0), "pdu_malformed"),
        (b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00", (0, 0), "pdu_unexpected"),
        (b"\x01\x00\xff\xff\xff\xff", (0, 0), "pdu_too_long"),
        (request_pdu().replace(b"\x20\x00\x00\x2e\x01", b"\x20\x00\x00\x2e\x02"), (0, 0), "pdu_malformed"),
        (re.sub(rb"(\x20\x00\x00.)\x03", b"\\1\x01", request_pdu()), (0, 0), "pdu_malformed"),
        (request_pdu().replace(b"\x10\x00\x00\x15", b"\x10\x00\xff\x15"), (0, 0), "pdu_malformed"),
        (request_pdu().replace(b"1.2.840.10008.5.1.4.1.1.2", b"DOE^JANE.1.4.1.1.2.3.4\r\n1"), (0, 0), "pdu_malformed"),
    ],
)
def test_breach_before_the_association_is_aborted(node, sent, answer, rule):
    with node.connect() as connection:
        began = time.monotonic()
        connection.sendall(sent)
        assert abort(read_pdu(connection)) == answer
        assert time.monotonic() - began < node.settings.node.request_seconds / 2  # at once, not at the deadline
    assert node.await_refusals() == [rule]
    assert node.failures == []
    assert echo_milliseconds(node) < 1000


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x09\x00\x00\x00\x00\x04abcd", (2, 1)),
        (bytes(request_pdu()), (2, 2)),
        (b"\x04\x00\xff\xff\xff\xff", (2, 6)),
        (b"\x04\x00" + struct.pack(">L", 131073), (2, 6)),
        (pdata(b"\x00\x00\x00\x00"), (2, 6)),
        (pdata(b"\x00\x00\x00\x99\x01\x03"), (2, 6)),
        (pdata(value(99, 3, b"")), (2, 6)),
        (pdata(value(3, 2, b"data before command")), (2, 6)),
        (pdata(value(1, 3, b"junk")), (2, 6)),
        (pdata(value(1, 3, encode({Tag.COMMAND_FIELD: 0x8030, Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET}))), (2, 6)),
    ],
)
def test_breach_within_the_association_is_aborted(node, sent, answer):
    with associated(node) as connection:
        connection.sendall(sent)
        assert abort(read_pdu(connection)) == answer
    until(lambda: node.listener.running == 0)
    assert len(node.await_refusals()) == 1
    assert node.failures == []
    assert node.received == []
