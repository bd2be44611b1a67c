"""Association requests: whatever comes, pynetdicom decodes it without a warning, or it was a ValueError before."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ
from support.network import request_pdu, with_titles

from radnode.network import screen


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_any_titles_are_set_aside_and_decodable(called, calling):
    request = with_titles(request_pdu(), called, calling)
    assert screen.titles(request) == (called, calling)
    screen.make_decodable(request)
    A_ASSOCIATE_RQ().decode(bytes(request))


@given(st.integers(0, 250), st.binary(min_size=1, max_size=8))
def test_a_damaged_request_is_a_value_error_or_nothing(offset, damage):
    request = request_pdu()
    request[offset : offset + len(damage)] = damage
    with contextlib.suppress(ValueError):
        screen.make_decodable(request)


@pytest.mark.parametrize("uid", [b"DOE^JANE", b"1.2\r\n", b"", b"1" * 65, "1.2.\u00e9".encode()])
def test_what_is_no_uid_is_an_error_without_its_text(uid):
    encoded = bytes(request_pdu())
    item = b"\x10\x00" + len(uid).to_bytes(2, "big") + uid
    request = bytearray(encoded[:74] + item)
    with pytest.raises(ValueError, match="digits and periods") as caught:
        screen.make_decodable(request)
    assert "DOE" not in str(caught.value)


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def counted(*uids: bytes) -> bytes:
    return b"".join(len(uid).to_bytes(2, "big") + uid for uid in uids)


def test_common_extended_negotiation_is_checked_to_its_last_uid():
    start = bytes(request_pdu())[:74]
    legal = item(0x57, counted(b"1.2", b"1.3") + b"\x00\x0a" + counted(b"1.4", b"1.5"))
    screen.make_decodable(bytearray(start + item(0x50, legal)))
    for uid in (b"1.2", b"1.3", b"1.4", b"1.5"):
        with pytest.raises(ValueError, match="digits and periods"):
            screen.make_decodable(bytearray(start + item(0x50, legal.replace(uid, b"A.B"))))


@pytest.mark.parametrize("outer", [0x20, 0x21, 0x50])
@pytest.mark.parametrize("inner", [0x20, 0x21, 0x50])
def test_items_do_not_nest_deeper_than_the_standard_has_them(outer, inner):
    nested = item(outer, bytes(4) + item(inner, bytes(4))) if outer != 0x50 else item(outer, item(inner, bytes(4)))
    with pytest.raises(ValueError, match="stand by itself"):
        screen.make_decodable(bytearray(bytes(request_pdu())[:74] + nested))
