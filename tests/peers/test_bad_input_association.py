"""Rows 4 to 6 and 11 of "Bad input and what it gets" (security.md): association requests that are turned down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from support import films, rooms
from support.bad_input import MAX_ASSOCIATIONS, MAX_ASSOCIATIONS_PER_PEER, Target
from support.network import read_pdu, rejection, request_pdu, with_titles
from support.node import wait_for

from radnode.network import wire
from radnode.pki import fingerprint

ANOTHERS = "certificate_of_another"
UNKNOWN_CALLING, UNKNOWN_CALLED = "calling_ae_title_unknown", "called_ae_title_unknown"
# calling and called AE title, the A-ASSOCIATE-RJ, the rule, and the calling title as it stands in log and trail
TITLES: dict[str, tuple[bytes, bytes, tuple[int, int, int], str, str | None]] = {
    "unknown calling": (b"STRANGER", b"RADNODE", (1, 1, 3), UNKNOWN_CALLING, "STRANGER"),
    "unknown called": (b"MODALITY1", b"OTHER", (1, 1, 7), UNKNOWN_CALLED, "MODALITY1"),
    "blank calling": (b"", b"RADNODE", (1, 1, 3), UNKNOWN_CALLING, None),
    "blank called": (b"MODALITY1", b"", (1, 1, 7), UNKNOWN_CALLED, "MODALITY1"),
    "calling of NULs": (bytes(16), b"RADNODE", (1, 1, 3), UNKNOWN_CALLING, "\\x00" * 16),
    "calling that forges a log line": (
        *(b'\r\n{"event":"x"}\x00', b"RADNODE"),
        *((1, 1, 3), UNKNOWN_CALLING, r'\r\n{"event":"x"}\x00'),
    ),
    "calling that colours the terminal": (
        *(b"\x1b[31mRED\x07", b"RADNODE"),
        *((1, 1, 3), UNKNOWN_CALLING, r"\x1b[31mRED\x07"),
    ),
    "calling in no ASCII": (b"M\xdcLLER", b"RADNODE", (1, 1, 3), UNKNOWN_CALLING, r"M\xdcLLER"),
    "called with control characters": (b"MODALITY1", b"RADNODE\r\n", (1, 1, 7), UNKNOWN_CALLED, "MODALITY1"),
    "known calling with a control character": (b"MODALITY1\n", b"RADNODE", (1, 1, 3), UNKNOWN_CALLING, r"MODALITY1\n"),
}


def test_row_04_certificate_of_another_title_is_rejected(target: Target) -> None:
    with target.attacked(ANOTHERS) as told:
        assert answer(target, bytes(request_pdu()), "admin") == (1, 1, 3)
    assert_audited(target, told, "MODALITY1", "admin")


def test_row_04_storescu_with_the_certificate_of_another_fails_and_nothing_is_kept(target: Target) -> None:
    before = target.node.trail("image_received")
    with target.attacked(ANOTHERS):
        sent = target.storescu([films.OPACITY], "admin")
    assert sent.returncode != 0
    assert "Calling AE Title Not Recognized" in sent.stdout + sent.stderr
    assert target.node.trail("image_received") == before


@pytest.mark.parametrize(("calling", "called", "triple", "rule", "logged"), TITLES.values(), ids=TITLES)
def test_row_05_title_is_rejected_and_escaped(target: Target, calling, called, triple, rule, logged) -> None:
    with target.attacked(rule) as told:
        assert answer(target, bytes(with_titles(request_pdu(), called, calling))) == triple
    assert_audited(target, told, logged, "modality")


@pytest.mark.parametrize("version", [0, 2, 0xFFFE])
def test_row_06_protocol_version_other_than_1_is_rejected(target: Target, version: int) -> None:
    request = request_pdu()
    request[6:8] = version.to_bytes(2)
    with target.attacked("protocol_version_unsupported"):
        assert answer(target, bytes(request)) == (1, 2, 2)


@pytest.mark.parametrize("name", [b"1.2.840.10008.3.1.1.9", b"1.2.840.10008.3.1.1"])
def test_row_06_wrong_application_context_is_rejected(target: Target, name: bytes) -> None:
    dicom = b"1.2.840.10008.3.1.1.1"
    request = request_pdu()
    at = request.index(b"\x10\x00\x00\x15" + dicom)
    request[at : at + 4 + len(dicom)] = b"\x10\x00" + len(name).to_bytes(2) + name
    request[2:6] = (len(request) - 6).to_bytes(4)
    with target.attacked("application_context_unknown"):
        assert answer(target, bytes(request)) == (1, 1, 2)


def test_row_11_flood_from_one_peer_is_rejected_and_others_are_served(flooded: Target) -> None:
    over = 3 * MAX_ASSOCIATIONS_PER_PEER
    with (
        flooded.attacked(*["too_many_associations_of_peer"] * over),
        ExitStack() as stack,
        ThreadPoolExecutor(MAX_ASSOCIATIONS_PER_PEER + over) as pool,
    ):
        connections = [stack.enter_context(flooded.connect()) for _ in range(MAX_ASSOCIATIONS_PER_PEER + over)]
        answers = list(pool.map(lambda connection: ask(connection, request_pdu()), connections))
        assert [pdu[:1] for pdu in answers].count(b"\x02") == MAX_ASSOCIATIONS_PER_PEER
        assert {rejection(pdu) for pdu in answers if pdu[:1] != b"\x02"} == {(2, 3, 2)}
        flooded.assert_serves()
    assert flooded.store(rooms.small(SOPInstanceUID="1.2.3.11.1")) == 0x0000


def test_row_11_flood_from_many_peers_is_rejected_and_recovers(flooded: Target) -> None:
    rest = MAX_ASSOCIATIONS - MAX_ASSOCIATIONS_PER_PEER
    with flooded.attacked("too_many_associations"), ExitStack() as stack:
        first = [stack.enter_context(flooded.connect()) for _ in range(MAX_ASSOCIATIONS_PER_PEER)]
        second = [stack.enter_context(flooded.connect("server")) for _ in range(rest)]
        assert {ask(connection, request_pdu())[:1] for connection in first} == {b"\x02"}
        assert {ask(connection, request_pdu("RADNODE"))[:1] for connection in second} == {b"\x02"}
        assert answer(flooded, bytes(request_pdu("ADMIN")), "admin") == (2, 3, 2)
        first[0].sendall(wire.RELEASE_RQ_PDU)
        assert read_pdu(first[0])[:1] == b"\x06"
        wait_for(lambda: flooded.log()[-1]["event"] == "association_ended", 5, "the slot is given back")
        flooded.assert_serves()


def ask(connection, request: bytes) -> bytes:
    """The PDU that answers a request."""
    connection.sendall(request)
    return read_pdu(connection)


def answer(target: Target, request: bytes, certificate: str = "modality") -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ that answers a request; the connection ends after it."""
    with target.connect(certificate) as connection:
        triple = rejection(ask(connection, request))
        assert read_pdu(connection) == b""
        return triple


def assert_audited(target: Target, told: list[dict[str, Any]], title: str | None, certificate: str) -> None:
    """The last refusal in log and trail names title, certificate and address."""
    [line] = [line for line in told if line["event"] == "peer_refused"]
    seen = fingerprint(target.pki / f"{certificate}.crt")
    assert (line.get("ae"), line["certificate"], line["address"]) == (title, seen, "127.0.0.1")
    entry = target.node.trail("peer_refused")[-1]
    assert (entry["event"], entry["action"], entry["outcome"]) == ("110113 peer_refused", "E", "minor")
    assert entry["actor"] == {"ae": title, "certificate": seen, "address": "127.0.0.1", "user": None}
