"""PDUs in any order at a real listener: what is legal is answered, the first breach ends it (PS3.8 section 9.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from support.network import (
    CT,
    EXPLICIT,
    Node,
    abort,
    echo_milliseconds,
    pdata,
    read_pdu,
    rejection,
    request_pdu,
    value,
    with_titles,
)
from support.raw_peer import (
    CALLING,
    LANES,
    REQUEST,
    Census,
    connect,
    finish,
    plain_node,
    say,
    say_in_vain,
)

from radnode import pki
from radnode.network import wire
from radnode.network.command_set import NO_DATA_SET, Command, CommandSet, Tag, encode
from radnode.network.contexts import VERIFICATION

IMPLICIT = "1.2.840.10008.1.2"
OFFERS = ((VERIFICATION, IMPLICIT), (VERIFICATION, EXPLICIT), (CT, EXPLICIT), (CT, IMPLICIT))
UNKNOWN = (("1.2.3.4", IMPLICIT), (CT, "1.2.3.4.5"), (VERIFICATION, "1.2.3.4.5"))  # rejected, results 3, 4 and 4
RELEASE_RP_PDU = bytes.fromhex("06000000000400000000")
REJECT_PDU = bytes.fromhex("03000000000400010101")
ECHO = encode(
    {
        Tag.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        Tag.COMMAND_FIELD: Command.C_ECHO,
        Tag.MESSAGE_ID: 1,
        Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
    }
)
REJECTIONS = (
    (bytes(request_pdu("NOBODY")), (1, 1, 3)),
    (bytes(request_pdu(CALLING, "ANOTHER")), (1, 1, 7)),
    (bytes(with_titles(bytearray(REQUEST), calling=b"A\r\nB")), (1, 1, 3)),
    (REQUEST.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"), (1, 1, 2)),
    (REQUEST[:6] + b"\x00\x02" + REQUEST[8:], (1, 2, 2)),
)
BEFORE = (  # breaches in Sta2: A-ABORT 0/0
    b"GET / HTTP/1.0\r\n\r\n",
    b"\x00\x00\x00\x00\x00\x00",
    b"\x08\x00\x00\x00\x00\x04abcd",
    b"\x01\x00\xff\xff\xff\xff",
    b"\x01\x00\x00\x00\x00\x00",
    pdata(value(1, 3, ECHO)),
    wire.RELEASE_RQ_PDU,
    RELEASE_RP_PDU,
    b"\x02" + REQUEST[1:],
    REQUEST.replace(b"\x10\x00\x00\x15", b"\x10\x00\xff\x15"),
    REQUEST.replace(VERIFICATION.encode(), b"1.2.840.10008.1.X"),
)
WITHIN = (  # breaches in Sta6: A-ABORT 2 and the reason
    (b"GET / HTTP/1.0\r\n\r\n", 1),
    (b"\xff\x00\x00\x00\x00\x00", 1),
    (REQUEST, 2),
    (REJECT_PDU, 2),
    (RELEASE_RP_PDU, 2),
    (b"\x04\x00\xff\xff\xff\xff", 6),
    (b"\x04\x00" + struct.pack(">L", 131073), 6),
    (b"\x05\x00\x00\x01\x00\x00", 6),
    (b"\x04\x00\x00\x00\x00\x00", 6),
    (pdata(b"\x00\x00\x00\x00"), 6),
    (pdata(b"\x00\x00\x00\x01\x01"), 6),
    (pdata(b"\x00\x00\x00\x99\x01\x03"), 6),
    (pdata(value(1, 3, ECHO), b"\x00\x00"), 6),
    (pdata(value(99, 3, ECHO)), 6),
    (pdata(value(2, 3, ECHO)), 6),
)
CUTS = st.lists(st.integers(0, 2**16), max_size=4)


class PDUMachine(RuleBasedStateMachine):
    """One peer, connection after connection. `state` is None, "connected" or "associated"."""

    def __init__(self, node: Node, *, tls: bool) -> None:
        super().__init__()
        self.node, self.tls = node, tls
        for kept in (node.received, node.refusals, node.events, node.failures):
            kept.clear()  # of the example before, which may have failed
        self.census = Census(node)
        self.state: str | None = None
        self.verification: list[int] = []  # accepted contexts for C-ECHO

    @precondition(lambda self: self.state is None)
    @rule()
    def connect(self) -> None:
        self.connection = connect(self.node, tls=self.tls)
        self.state = "connected"

    @precondition(lambda self: self.state == "connected")
    @rule(offers=st.lists(st.sampled_from(OFFERS + UNKNOWN), min_size=1, max_size=6, unique=True), cuts=CUTS)
    def associate(self, offers: list[tuple[str, str]], cuts: list[int]) -> None:
        say(self.connection, bytes(request_pdu(self.title, offers=offers)), cuts)
        answer = read_pdu(self.connection)
        assert answer[:1] == b"\x02", answer[:10].hex()
        accepted, _ = wire.read_associate_ac(answer[6:])
        known = {2 * index + 1: offer for index, offer in enumerate(offers) if offer in OFFERS}
        assert accepted == {identifier: syntax for identifier, (_, syntax) in known.items()}
        self.verification = [identifier for identifier, (uid, _) in known.items() if uid == VERIFICATION]
        self.state = "associated"

    @property
    def title(self) -> str:
        return "MODALITY1" if self.tls else CALLING

    @precondition(lambda self: self.state == "connected" and not self.tls)
    @rule(case=st.sampled_from(REJECTIONS), cuts=CUTS)
    def ask_in_vain(self, case: tuple[bytes, tuple[int, int, int]], cuts: list[int]) -> None:
        say(self.connection, case[0], cuts)
        assert rejection(read_pdu(self.connection)) == case[1]
        self.end()

    @precondition(lambda self: self.state == "connected")
    @rule(breach=st.sampled_from(BEFORE), cuts=CUTS)
    def break_before(self, breach: bytes, cuts: list[int]) -> None:
        say_in_vain(self.connection, breach, cuts)
        assert abort(read_pdu(self.connection)) == (0, 0)
        self.end()

    @precondition(lambda self: self.state == "connected")
    @rule(pdu=st.sampled_from([pdata(value(1, 3, ECHO)), wire.RELEASE_RQ_PDU, REQUEST, b"\x09\0\0\0\0\0"]), cuts=CUTS)
    def go_on_without_waiting_for_the_answer(self, pdu: bytes, cuts: list[int]) -> None:
        say_in_vain(self.connection, bytes(request_pdu(self.title)) + pdu, cuts)
        heard = read_pdu(self.connection)
        while heard and heard[0] not in (0x06, 0x07):  # the answer may have been first, and what was sent legal
            heard = read_pdu(self.connection)
        self.end()

    @precondition(lambda self: self.state == "associated")
    @rule(times=st.integers(1, 4), parts=st.integers(1, 3), cuts=CUTS)
    def echo(self, times: int, parts: int, cuts: list[int]) -> None:
        if not self.verification:
            return
        step = -(-len(ECHO) // parts)
        values = [
            value(self.verification[-1], 3 if start + step >= len(ECHO) else 1, ECHO[start : start + step])
            for start in range(0, len(ECHO), step)
        ]
        say(self.connection, pdata(*values) * times, cuts)
        for _ in range(times):
            answer = read_pdu(self.connection)
            assert answer[:1] == b"\x04", answer[:10].hex()
            ((last, response),) = wire.read_p_data(answer[6:])
            assert last
            assert CommandSet.parse(response).ushort(Tag.STATUS) == 0

    @precondition(lambda self: self.state == "associated")
    @rule(case=st.sampled_from(WITHIN), cuts=CUTS)
    def break_within(self, case: tuple[bytes, int], cuts: list[int]) -> None:
        say_in_vain(self.connection, case[0], cuts)
        assert abort(read_pdu(self.connection)) == (2, case[1])
        self.end()

    @precondition(lambda self: self.state == "associated")
    @rule(cuts=CUTS)
    def release(self, cuts: list[int]) -> None:
        say(self.connection, wire.RELEASE_RQ_PDU, cuts)
        assert read_pdu(self.connection)[:1] == b"\x06"
        self.end()

    @precondition(lambda self: self.state is not None)
    @rule(cuts=CUTS)
    def abort(self, cuts: list[int]) -> None:
        say(self.connection, wire.ABORT_PDU, cuts)
        assert read_pdu(self.connection) == b""
        self.end()

    @precondition(lambda self: self.state is not None)
    @rule(pdu=st.sampled_from([REQUEST, pdata(value(1, 3, ECHO)), wire.RELEASE_RQ_PDU]), length=st.integers(0, 2**16))
    def stop_within_a_pdu(self, pdu: bytes, length: int) -> None:
        self.connection.sendall(pdu[: length % len(pdu)])
        self.end()

    @precondition(lambda self: self.state is not None)
    @rule(politely=st.booleans())
    def leave(self, politely: bool) -> None:
        self.end(politely=politely)

    def end(self, *, politely: bool = True) -> None:
        """Close; the node closes too, and asks for nothing more than our end of the connection."""
        if politely:
            finish(self.connection)
        self.connection.close()
        self.state = None

    def teardown(self) -> None:
        if self.state is not None:
            self.end()
        self.census.settle()
        self.connect()
        self.associate([(VERIFICATION, IMPLICIT)], [])
        self.echo(1, 1, [])
        self.release([])
        self.census.settle()
        assert self.node.failures == []
        assert self.node.received == []


@pytest.fixture(scope="module", params=LANES, ids=["fast-lane", "pynetdicom"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder: Path = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    lane: bool = request.param
    with plain_node(folder, lane) as node:
        yield node


@pytest.mark.parametrize(("tls", "examples"), [(False, 60), (True, 12)], ids=["plain", "tls"])
def test_any_order_of_pdus_is_answered_or_ended_and_leaves_nothing_behind(node: Node, tls: bool, examples: int) -> None:
    run_state_machine_as_test(
        lambda: PDUMachine(node, tls=tls), settings=settings(max_examples=examples, stateful_step_count=20)
    )
    assert echo_milliseconds(node) < 1000
