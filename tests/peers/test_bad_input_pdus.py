"""Rows 7 to 9 of "Bad input and what it gets" (security.md): PDUs that break PS3.8, or do not come to an end."""

from __future__ import annotations

import ssl
import struct
import time

import pytest
from support.bad_input import PDU_SECONDS, REQUEST_SECONDS, Target
from support.network import CT, abort, associated, pdata, read_pdu, request_pdu, store_command, value

from radnode.network import wire
from radnode.network.command_set import encode
from radnode.network.contexts import VERIFICATION

AT_ONCE = 1.0  # seconds; before any deadline, and time enough for a busy machine
MAX_PDU = 131072  # what the node announces
RELEASE = wire.RELEASE_RQ_PDU
COMMAND = value(3, 3, encode(store_command()))
UNEXPECTED, UNKNOWN, MALFORMED, TOO_LONG = "pdu_unexpected", "pdu_unrecognized", "pdu_malformed", "pdu_too_long"


def context_item(identifier: int, abstract_syntax: bytes = b"1.2.840.10008.1.1") -> bytes:
    """One proposed presentation context (PS3.8 Table 9-13)."""
    names = item(0x30, abstract_syntax) + item(0x40, b"1.2.840.10008.1.2")
    return item(0x20, bytes((identifier, 0, 0, 0)) + names)


def item(item_type: int, content: bytes) -> bytes:
    return struct.pack(">BxH", item_type, len(content)) + content


def request_with(*contexts: bytes) -> bytes:
    """An A-ASSOCIATE-RQ whose presentation contexts are these items."""
    pdu = request_pdu(offers=[(VERIFICATION, "1.2.840.10008.1.2")])
    pdu = pdu.replace(context_item(1), b"".join(contexts))
    pdu[2:6] = (len(pdu) - 6).to_bytes(4)
    return bytes(pdu)


def within(target: Target, sent: bytes) -> tuple[tuple[int, int], float]:
    """Source and reason of the A-ABORT that answers these bytes in an association, and after how many seconds."""
    with associated(target) as connection:
        return aborted(connection, sent)


def before(target: Target, sent: bytes) -> tuple[tuple[int, int], float]:
    """The same, in place of an association request."""
    with target.connect() as connection:
        return aborted(connection, sent)


def aborted(connection: ssl.SSLSocket, sent: bytes) -> tuple[tuple[int, int], float]:
    began = time.monotonic()
    connection.sendall(sent)
    answer = abort(read_pdu(connection))
    return answer, time.monotonic() - began


def drip(connection: ssl.SSLSocket, sent: bytes, pause_seconds: float) -> float:
    """Send a byte at a time until the peer has had enough; return after how many seconds that was."""
    began = time.monotonic()
    for byte in sent:
        try:
            connection.sendall(bytes([byte]))
            connection.settimeout(pause_seconds)
            if connection.recv(1) in (b"\x07", b""):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began


# --- row 7

EARLY = {
    "unknown PDU type": (b"\x09\x00\x00\x00\x00\x04abcd", UNKNOWN),
    "PDU type 0": (b"\x00\x00\x00\x00\x00\x04abcd", UNKNOWN),
    "P-DATA": (pdata(COMMAND), MALFORMED),  # for want of a context that was accepted
    "release": (RELEASE, UNEXPECTED),
}
LATE = {
    "unknown PDU type": (b"\x09\x00\x00\x00\x00\x04abcd", (2, 1), UNKNOWN),
    "second A-ASSOCIATE-RQ": (bytes(request_pdu()), (2, 2), UNEXPECTED),
    "A-ASSOCIATE-RJ": (bytes.fromhex("03000000000400010101"), (2, 2), UNEXPECTED),
    "A-RELEASE-RP": (bytes.fromhex("06000000000400000000"), (2, 2), UNEXPECTED),
}


@pytest.mark.parametrize(("sent", "rule"), EARLY.values(), ids=EARLY)
def test_row_07_pdu_before_the_association_is_aborted_at_once(target: Target, sent: bytes, rule: str) -> None:
    with target.attacked(rule):
        answer, seconds = before(target, sent)
        assert answer == (0, 0)
        assert seconds < AT_ONCE


@pytest.mark.parametrize(("sent", "answer", "rule"), LATE.values(), ids=LATE)
def test_row_07_pdu_within_the_association_is_aborted_at_once(target: Target, sent, answer, rule: str) -> None:
    with target.attacked(rule):
        heard, seconds = within(target, sent)
        assert heard == answer
        assert seconds < AT_ONCE


# --- row 8


def test_row_08_request_that_stalls_is_aborted_at_the_deadline(target: Target) -> None:
    with target.attacked("pdu_timeout"):
        answer, seconds = before(target, bytes(request_pdu()[:50]))
        assert answer == (0, 0)
        assert REQUEST_SECONDS / 2 < seconds < REQUEST_SECONDS + AT_ONCE


def test_row_08_data_that_stalls_is_aborted_at_the_deadline(target: Target) -> None:
    with target.attacked("pdu_timeout"):
        answer, seconds = within(target, pdata(COMMAND) + pdata(value(3, 0, bytes(60_000)))[:30_000])
        assert answer == (2, 0)
        assert PDU_SECONDS / 2 < seconds < PDU_SECONDS + AT_ONCE


def test_row_08_request_that_drips_is_aborted_at_the_deadline_of_the_whole_pdu(target: Target) -> None:
    with target.attacked("pdu_timeout"), target.connect() as connection:
        assert drip(connection, bytes(request_pdu()), REQUEST_SECONDS / 5) < REQUEST_SECONDS + AT_ONCE


def test_row_08_data_that_drips_is_aborted_at_the_deadline_of_the_whole_pdu(target: Target) -> None:
    with target.attacked("pdu_timeout"), associated(target) as connection:
        connection.sendall(pdata(COMMAND))
        assert drip(connection, pdata(value(3, 2, bytes(100))), PDU_SECONDS / 5) < PDU_SECONDS + AT_ONCE


@pytest.mark.parametrize("pdu_type", [1, 4])
def test_row_08_pdu_of_4_gib_before_the_association_is_aborted_without_allocation(target: Target, pdu_type) -> None:
    with target.attacked(TOO_LONG, peak=8 << 20):
        answer, seconds = before(target, bytes((pdu_type, 0)) + b"\xff" * 4)
        assert answer == (0, 0)
        assert seconds < AT_ONCE


@pytest.mark.parametrize("length", [MAX_PDU + 1, 2**31, 2**32 - 1])
def test_row_08_pdu_over_the_announced_maximum_is_aborted_at_once_without_allocation(target: Target, length) -> None:
    with target.attacked(TOO_LONG, peak=8 << 20):
        answer, seconds = within(target, b"\x04\x00" + length.to_bytes(4) + bytes(1000))
        assert answer == (2, 6)
        assert seconds < AT_ONCE


# --- row 9

REQUESTS = {
    "even context": request_with(context_item(2)),
    "context 0": request_with(context_item(0)),
    "repeated context": request_with(context_item(1), context_item(3), context_item(1)),
    "129 contexts": request_with(*(context_item((2 * n + 1) % 256) for n in range(129))),
    "1000 contexts": request_with(*(context_item(n % 256) for n in range(1000))),
    "application context too long": bytes(request_pdu()).replace(b"\x10\x00\x00\x15", b"\x10\x00\xff\x15"),
    "presentation context too long": bytes(request_pdu()).replace(b"\x20\x00\x00\x2e", b"\x20\x00\xff\x2e"),
    "presentation context too short": bytes(request_pdu()).replace(b"\x20\x00\x00\x2e", b"\x20\x00\x00\x2d"),
    "presentation context of 2 bytes": request_with(item(0x20, b"\x01\x00")),
    "context without abstract syntax": request_with(item(0x20, b"\1\0\0\0" + item(0x40, b"1.2.840.10008.1.2"))),
    "context without transfer syntax": request_with(item(0x20, b"\1\0\0\0" + item(0x30, b"1.2.840.10008.1.1"))),
    "application context without name": bytes(request_pdu()).replace(b"\x10\x00\x00\x15", b"\x10\0\0\0\x10\0\0\x15"),
    "abstract syntax too long": bytes(request_pdu()).replace(b"\x30\x00\x00\x11", b"\x30\x00\x7f\x11"),
    "transfer syntax too long": bytes(request_pdu()).replace(b"\x40\x00\x00\x11", b"\x40\x00\x00\x12"),
    "user information too long": bytes(request_pdu()).replace(b"\x50\x00\x00", b"\x50\x00\x01"),
    "maximum length too long": bytes(request_pdu()).replace(b"\x51\x00\x00\x04", b"\x51\x00\x00\xf4"),
    "maximum length of 3 bytes": bytes(request_pdu()).replace(b"\x51\x00\x00\x04", b"\x51\x00\x00\x03"),
}
VALUES = {
    "PDV longer than its PDU": pdata(b"\x00\x00\x00\x99\x01\x03" + bytes(10)),
    "PDV of 4 GiB": pdata(b"\xff\xff\xff\xff\x01\x03" + bytes(10)),
    "PDV of length 0": pdata(b"\x00\x00\x00\x00"),
    "PDV of length 1": pdata(b"\x00\x00\x00\x01\x01"),
    "PDV that leaves a rest": pdata(value(3, 1, b"1234") + b"\x00\x00"),
    "no PDV": pdata(),
    "second PDV longer than its PDU": pdata(COMMAND, b"\x00\x00\xff\xff\x03\x02data"),
    "context that was not proposed": pdata(value(5, 3, encode(store_command()))),
    "even context": pdata(value(2, 3, encode(store_command()))),
}


@pytest.mark.parametrize("sent", REQUESTS.values(), ids=REQUESTS)
def test_row_09_malformed_request_is_aborted_at_once(target: Target, sent: bytes) -> None:
    assert sent != bytes(request_pdu())
    with target.attacked(MALFORMED, peak=8 << 20):
        answer, seconds = before(target, sent)
        assert answer == (0, 0)
        assert seconds < AT_ONCE


@pytest.mark.parametrize("sent", VALUES.values(), ids=VALUES)
def test_row_09_malformed_presentation_data_value_is_aborted_at_once(target: Target, sent: bytes) -> None:
    with target.attacked(MALFORMED, peak=8 << 20):
        answer, seconds = within(target, sent)
        assert answer == (2, 6)
        assert seconds < AT_ONCE


def test_row_09_value_on_a_context_that_was_rejected_is_aborted_at_once(target: Target) -> None:
    offers = [(VERIFICATION, "1.2.840.10008.1.2"), (CT, "1.2.3.5")]
    with target.attacked("context_not_accepted", MALFORMED), target.connect() as connection:
        connection.sendall(request_pdu(offers=offers))
        assert read_pdu(connection)[:1] == b"\x02"
        answer, seconds = aborted(connection, pdata(COMMAND))
        assert answer == (2, 6)
        assert seconds < AT_ONCE
