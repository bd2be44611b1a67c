"""Association requests: whatever comes, pynetdicom decodes it without a warning, or it was a ValueError before."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ
from support.network import item, request_pdu, with_titles

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


@given(st.lists(st.tuples(st.integers(0x59, 0xFF), st.binary(max_size=40))))
def test_items_that_nobody_reads_leave_no_trace(strange):
    plain, request = request_pdu(), request_pdu()
    for item_type, content in strange:
        request += item(item_type, content)
    screen.make_decodable(plain)
    screen.make_decodable(request)
    assert request == plain


@pytest.mark.parametrize("uid", [b"DOE^JANE", b"1.2\r\n", b"", b"1" * 65, "1.2.\u00e9".encode()])
def test_what_is_no_uid_is_an_error_without_its_text(uid):
    encoded = bytes(request_pdu())
    request = bytearray(encoded[:74] + item(0x10, uid))
    with pytest.raises(ValueError, match="digits and periods") as caught:
        screen.make_decodable(request)
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    "held", [b"", b"\x30\x00\x00\x011", b"\x40\x00\x00\x011", b"\x30\x00\x00\x011" * 2 + b"\x40\x00\x00\x011"]
)
def test_presentation_context_without_its_syntaxes_is_an_error(held):
    encoded = bytes(request_pdu())
    content = b"\x01\x00\x00\x00" + held
    request = bytearray(encoded[:74] + b"\x20\x00" + len(content).to_bytes(2, "big") + content)
    with pytest.raises(ValueError, match="abstract or transfer syntax"):
        screen.make_decodable(request)
