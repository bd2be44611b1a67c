"""User information and unknown items of an A-ASSOCIATE-RQ: what this node does not negotiate, it ignores."""

from __future__ import annotations

import struct

import pytest
from support.network import (
    CT,
    EXPLICIT,
    abort,
    command,
    echo_milliseconds,
    item,
    read_pdu,
    request_pdu,
    store_command,
)

from radnode.network.command_set import Tag
from radnode.network.contexts import MAX_CONTEXTS

APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
MAXIMUM_LENGTH = item(0x51, struct.pack(">L", 16384))
CLASS = struct.pack(">H", len(CT)) + CT.encode()


def context(identifier: int, *more: bytes) -> bytes:
    sub_items = item(0x30, CT.encode()) + item(0x40, EXPLICIT.encode()) + b"".join(more)
    return item(0x20, bytes([identifier, 0, 0, 0]) + sub_items)


def request(*items: bytes) -> bytes:
    body = bytes(request_pdu()[6:74]) + b"".join(items)
    return b"\x01\x00" + struct.pack(">L", len(body)) + body


def user_information(*sub_items: bytes) -> bytes:
    return item(0x50, MAXIMUM_LENGTH + b"".join(sub_items))


def types_in(answer: bytes) -> list[int]:
    """The types of the items of an A-ASSOCIATE-AC, and of the sub-items of its user information."""
    found, body = [], answer[74:]
    while body:
        length = struct.unpack_from(">H", body, 2)[0]
        found.append(body[0])
        body = body[4:] if body[0] == 0x50 else body[4 + length :]
    return found


@pytest.mark.parametrize(
    "sub_item",
    [
        pytest.param(item(0x53, struct.pack(">HH", 0, 0)), id="asynchronous operations window"),
        pytest.param(item(0x54, CLASS + b"\x00\x01"), id="role selection: the peer would be SCP"),
        pytest.param(item(0x54, CLASS + b"\x01\x01"), id="role selection: both"),
        pytest.param(item(0x56, CLASS + b"\x01\x01\x01\x00\x00\x00"), id="extended negotiation"),
        pytest.param(item(0x57, CLASS + struct.pack(">H", 0) + b"\x00\x00"), id="common extended negotiation"),
        pytest.param(item(0x58, b"\x01\x00\x00\x08DOE^JANE\x00\x00"), id="user identity"),
        pytest.param(item(0x58, b"\x02\x01\x00\x08DOE^JANE\x00\x06secret"), id="user identity, response demanded"),
        pytest.param(item(0x58, b"\x63\x01\x00\x00\x00\x00"), id="user identity of a type to come"),
        pytest.param(item(0x5A, b"anything"), id="sub-item to come"),
        pytest.param(item(0xFF, b""), id="empty sub-item to come"),
        pytest.param(item(0x55, b"A NAME OF MORE THAN SIXTEEN CHARACTERS"), id="version name too long"),
    ],
)
def test_what_is_not_negotiated_is_ignored_and_the_association_is_served(node, sub_item):
    with node.connect() as connection:
        connection.sendall(request(APPLICATION, context(1), user_information(sub_item)))
        answer = read_pdu(connection)
        assert answer[:1] == b"\x02"
        assert types_in(answer) == [0x10, 0x21, 0x50, 0x51, 0x52, 0x55]
        assert command(connection, 1, store_command(), b"kept").ushort(Tag.STATUS) == 0
    assert [data_set for _, data_set in node.received] == [b"kept"]
    assert node.refusals == []
    assert node.failures == []


@pytest.mark.parametrize(
    "items",
    [
        pytest.param((APPLICATION, context(1), user_information(), item(0x60, b"anything")), id="item to come"),
        pytest.param((APPLICATION, context(1, item(0x41, b"anything")), user_information()), id="in a context"),
        pytest.param((APPLICATION, context(1)), id="no user information at all"),
        pytest.param((user_information(), context(1), APPLICATION), id="another order"),
    ],
)
def test_unknown_items_are_ignored_and_order_does_not_matter(node, items):
    with node.connect() as connection:
        connection.sendall(request(*items))
        assert read_pdu(connection)[:1] == b"\x02"
        assert command(connection, 1, store_command(), b"kept").ushort(Tag.STATUS) == 0
    assert node.refusals == []


def test_128_contexts_are_served_and_one_more_is_aborted(node):
    odd = range(1, 2 * MAX_CONTEXTS, 2)
    with node.connect() as connection:
        connection.sendall(request(APPLICATION, *(context(identifier) for identifier in odd), user_information()))
        answer = read_pdu(connection)
        assert types_in(answer).count(0x21) == MAX_CONTEXTS == 128
    for one_more in (1, 2):  # an ID of a byte that is odd and not repeated is not left
        contexts = [context(identifier) for identifier in (*odd, one_more)]
        with node.connect() as connection:
            connection.sendall(request(APPLICATION, *contexts, user_information()))
            assert abort(read_pdu(connection)) == (0, 0)
    assert node.await_refusals(2) == ["pdu_malformed"] * 2
    assert echo_milliseconds(node) < 1000


@pytest.mark.parametrize("end", [APPLICATION[:-1], item(0x50, b"\x5a\x00\xff\xff"), item(0x50, MAXIMUM_LENGTH[:-1])])
def test_length_that_lies_is_aborted_also_in_what_is_ignored(node, end):
    with node.connect() as connection:
        connection.sendall(request(APPLICATION, context(1), end))
        assert abort(read_pdu(connection)) == (0, 0)
    assert node.await_refusals() == ["pdu_malformed"]
