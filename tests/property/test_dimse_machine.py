"""Messages in any fragments at a real listener: every whole C-STORE is answered once, kept as sent (PS3.8 Annex E)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from support.network import CT, Node, abort, echo_milliseconds, pdata, read_pdu, request_pdu, store_command, value
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
from radnode.network.command_set import NO_DATA_SET, RESPONSE, Command, CommandSet, Tag, encode
from radnode.network.contexts import VERIFICATION

ECHO_CONTEXT, CT_CONTEXT = 1, 3  # of `request_pdu`
MAX_PDU, MAX_OBJECT = 8192, 20_000  # bytes, so small that examples pass both
ROOM = MAX_PDU - 6  # bytes of a value that has a PDU to itself
COMMAND, LAST = 0x01, 0x02  # message control header, PS3.8 Annex E.2

CUTS = st.lists(st.integers(0, 2**16), max_size=5)
MESSAGE_IDS = st.integers(0, 0xFFFF)


@dataclass(frozen=True)
class Said:
    """One message: what is sent on which context, and the status that is due (None: no answer)."""

    context_id: int
    command: bytes
    data_set: bytes | None
    message_id: int
    status: int | None

    @property
    def is_kept(self) -> bool:
        return self.status == 0 and self.data_set is not None


@st.composite
def messages(draw: st.DrawFn) -> Said:
    message_id = draw(MESSAGE_IDS)
    kind = draw(st.sampled_from(["store", "store", "store", "echo", "odd"]))
    if kind == "echo":
        context_id, sop_class = draw(
            st.sampled_from([(ECHO_CONTEXT, VERIFICATION), (CT_CONTEXT, CT), (ECHO_CONTEXT, CT)])
        )
        return Said(
            context_id, _plain(Command.C_ECHO, message_id, sop_class), None, message_id, 0x0122 * (sop_class == CT)
        )
    if kind == "odd":
        field, status = draw(
            st.sampled_from(
                [(Command.C_FIND, 0x0122), (Command.N_GET, 0x0122), (0x0777, 0x0211), (Command.C_CANCEL, None)]
            )
        )
        return Said(CT_CONTEXT, _plain(field, message_id, CT), None, message_id, status)
    return draw(_stores(message_id))


def _plain(field: int, message_id: int, sop_class: str) -> bytes:
    identifier = Tag.MESSAGE_ID_BEING_RESPONDED_TO if field == Command.C_CANCEL else Tag.MESSAGE_ID
    values = {Tag.COMMAND_FIELD: field, identifier: message_id, Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET}
    return encode({Tag.AFFECTED_SOP_CLASS_UID: sop_class, **values})


@st.composite
def _stores(draw: st.DrawFn, message_id: int) -> Said:
    size = draw(st.integers(1, 300) | st.sampled_from([ROOM, ROOM + 1, MAX_OBJECT - 1, MAX_OBJECT, MAX_OBJECT + 1]))
    data_set = draw(st.binary(min_size=16, max_size=16)) * (size // 16 + 1)
    changes, content, status = draw(
        st.sampled_from(
            [
                ({}, data_set[:size], 0x0000 if size <= MAX_OBJECT else 0xA700),
                ({"AFFECTED_SOP_CLASS_UID": VERIFICATION}, data_set[:100], 0x0122),
                ({"AFFECTED_SOP_INSTANCE_UID": "../x"}, data_set[:100], 0x0117),
                ({}, b"", 0xC000),
                ({"COMMAND_DATA_SET_TYPE": NO_DATA_SET}, None, 0xC000),
            ]
        )
    )
    command = encode(store_command(MESSAGE_ID=message_id, **changes))
    return Said(CT_CONTEXT, command, content, message_id, status)


def fragments(said: Said, command_cuts: list[int], data_cuts: list[int]) -> list[bytes]:
    """The presentation data values of a message, its command and data set cut at these places; some may be empty."""
    values = []
    parts = [(said.command, COMMAND, command_cuts)]
    if said.data_set is not None:
        parts.append((said.data_set, 0, data_cuts))
    for content, control, cuts in parts:
        ends = sorted([cut % (len(content) + 1) for cut in cuts] + list(range(ROOM, len(content), ROOM)))
        for start, end in pairwise([0, *ends]):
            values.append(value(said.context_id, control, content[start:end]))
        values.append(value(said.context_id, control | LAST, content[ends[-1] if ends else 0 :]))
    return values


def pdus(values: list[bytes], group: int) -> list[bytes]:
    """P-DATA-TF PDUs with up to `group` values each, as many as the announced maximum lets in."""
    packed: list[list[bytes]] = [[]]
    for item in values:
        if packed[-1] and (len(packed[-1]) == group or sum(map(len, packed[-1])) + len(item) > MAX_PDU):
            packed.append([])
        packed[-1].append(item)
    return [pdata(*items) for items in packed]


ECHO_VALUE = value(ECHO_CONTEXT, COMMAND | LAST, _plain(Command.C_ECHO, 1, VERIFICATION))
STORE = encode(store_command())
BREACHES = (  # at the start of a message; with the reason of the A-ABORT, whose source is 2
    (pdata(value(CT_CONTEXT, LAST, b"data before its command")), 6),
    (pdata(value(CT_CONTEXT, 0, b"")), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, b"junk")), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, b"")), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE[:-1])), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE[12:] + STORE[:12])), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE.replace(b"\x00\x00\x10\x01\x02", b"\x00\x00\x10\x01\x03"))), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, encode({Tag.MESSAGE_ID: 1}))), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, _plain(Command.C_STORE | RESPONSE, 1, CT))), 6),
    (pdata(*[value(CT_CONTEXT, COMMAND, b"\0" * 8000)]) * 9, 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE), value(CT_CONTEXT, COMMAND | LAST, STORE)), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE), value(CT_CONTEXT, COMMAND | LAST, b"")), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE), ECHO_VALUE), 6),
    (pdata(value(CT_CONTEXT, COMMAND | LAST, STORE)) + pdata(value(ECHO_CONTEXT, LAST, b"data")), 6),
    (pdata(value(CT_CONTEXT, COMMAND, STORE[:20]), value(CT_CONTEXT, LAST, b"data")), 6),
    (pdata(ECHO_VALUE, ECHO_VALUE), 6),  # two messages in one P-DATA
    (b"\x04\x00" + struct.pack(">L", MAX_PDU + 1), 6),
)
BREACHES_ANYWHERE = (
    (pdata(value(99, LAST, b"a context that was not accepted")), 6),
    (pdata(value(ECHO_CONTEXT, LAST, b"another context within a message")), 6),
    (pdata(b"\x00\x00\x00\x00"), 6),
    (pdata(b"\x00\x00\x00\x01\x03"), 6),
    (pdata(b"\x00\x00\xff\xff\x03\x02"), 6),
    (pdata(), 6),
    (b"\x0a\x00\x00\x00\x00\x00", 1),
    (REQUEST, 2),
)


class DIMSEMachine(RuleBasedStateMachine):
    """One peer with an association; `due` are the values of a message that has been begun and not ended."""

    def __init__(self, node: Node, *, tls: bool) -> None:
        super().__init__()
        self.node, self.tls = node, tls
        for kept in (node.received, node.refusals, node.events, node.failures):
            kept.clear()  # of the example before, which may have failed
        self.census = Census(node)
        self.is_open = False
        self.begun: Said | None = None
        self.due: list[bytes] = []

    @precondition(lambda self: not self.is_open)
    @rule()
    def associate(self) -> None:
        self.connection = connect(self.node, tls=self.tls)
        self.connection.sendall(request_pdu("MODALITY1" if self.tls else CALLING))
        assert read_pdu(self.connection)[:1] == b"\x02"
        self.is_open = True

    @precondition(lambda self: self.is_open and self.begun is None)
    @rule(
        several=st.lists(messages(), min_size=1, max_size=4),
        command_cuts=CUTS,
        data_cuts=CUTS,
        group=st.integers(1, 6),
        cuts=CUTS,
    )
    def speak(
        self, several: list[Said], command_cuts: list[int], data_cuts: list[int], group: int, cuts: list[int]
    ) -> None:
        """Whole messages, the next before the answer to the last; answers come in their order."""
        stream = [pdu for said in several for pdu in pdus(fragments(said, command_cuts, data_cuts), group)]
        say(self.connection, b"".join(stream), cuts)
        self.hear(several)

    @precondition(lambda self: self.is_open and self.begun is None)
    @rule(said=messages(), command_cuts=CUTS, data_cuts=CUTS, first=st.integers(1, 8))
    def begin(self, said: Said, command_cuts: list[int], data_cuts: list[int], first: int) -> None:
        values = fragments(said, command_cuts, data_cuts)
        first = min(first, len(values) - 1)
        if first:
            self.begun, self.due = said, values[first:]
            say(self.connection, b"".join(pdus(values[:first], 2)), [])

    @precondition(lambda self: self.is_open and self.begun is not None)
    @rule(group=st.integers(1, 6), cuts=CUTS)
    def go_on(self, group: int, cuts: list[int]) -> None:
        assert self.begun is not None
        say(self.connection, b"".join(pdus(self.due, group)), cuts)
        self.hear([self.begun])
        self.begun = None

    def hear(self, several: list[Said]) -> None:
        """The answers to these messages, each once, and what was kept."""
        for said in several:
            if said.status is None:
                continue
            answer = read_pdu(self.connection)
            assert answer[:1] == b"\x04", answer[:10].hex()
            ((last, encoded),) = wire.read_p_data(answer[6:])
            response = CommandSet.parse(encoded)
            assert last
            assert answer[10] == said.context_id
            assert response.ushort(Tag.MESSAGE_ID_BEING_RESPONDED_TO) == said.message_id
            assert (
                response.ushort(Tag.COMMAND_FIELD)
                == CommandSet.parse(said.command).ushort(Tag.COMMAND_FIELD) | RESPONSE
            )
            assert response.ushort(Tag.STATUS) == said.status
        assert [bytes(data_set) for _, data_set in self.node.received] == [
            said.data_set for said in several if said.is_kept
        ]
        self.node.received.clear()

    @precondition(lambda self: self.is_open and self.begun is None)
    @rule(case=st.sampled_from(BREACHES + BREACHES_ANYWHERE), cuts=CUTS)
    def breach(self, case: tuple[bytes, int], cuts: list[int]) -> None:
        self.be_aborted(case, cuts)

    @precondition(lambda self: self.is_open and self.begun is not None and self.begun.context_id == CT_CONTEXT)
    @rule(case=st.sampled_from(BREACHES_ANYWHERE), cuts=CUTS)
    def breach_within_a_message(self, case: tuple[bytes, int], cuts: list[int]) -> None:
        self.be_aborted(case, cuts)

    def be_aborted(self, case: tuple[bytes, int], cuts: list[int]) -> None:
        breach, reason = case
        say_in_vain(self.connection, breach, cuts)
        heard = read_pdu(self.connection)
        if breach == pdata(ECHO_VALUE, ECHO_VALUE) and heard[:1] == b"\x04":  # the first was a whole message
            heard = read_pdu(self.connection)
        assert abort(heard) == (2, reason)
        self.end()

    @precondition(lambda self: self.is_open)
    @rule(cuts=CUTS)
    def release(self, cuts: list[int]) -> None:
        """Also within a message: the peer may give up."""
        say(self.connection, wire.RELEASE_RQ_PDU, cuts)
        assert read_pdu(self.connection)[:1] == b"\x06"
        self.end()

    @precondition(lambda self: self.is_open and self.begun is not None)
    @rule(how=st.sampled_from([b"", wire.ABORT_PDU, b"\x04\x00\x00\x00\x10\x00\x00\x00", b"\x04"]))
    def leave(self, how: bytes) -> None:
        self.connection.sendall(how)
        self.end()

    def end(self) -> None:
        """Close; whatever was not whole is not kept."""
        finish(self.connection)
        self.connection.close()
        self.is_open, self.begun = False, None
        assert self.node.received == []

    def teardown(self) -> None:
        if self.is_open:
            self.end()
        self.census.settle()
        self.associate()
        self.speak([Said(ECHO_CONTEXT, _plain(Command.C_ECHO, 7, VERIFICATION), None, 7, 0)], [], [], 1, [])
        self.release([])
        self.census.settle()
        assert self.node.failures == []


@pytest.fixture(scope="module", params=LANES, ids=["fast-lane", "pynetdicom"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder: Path = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    lane: bool = request.param
    with plain_node(folder, lane, max_pdu=MAX_PDU, max_object_bytes=MAX_OBJECT) as node:
        yield node


@pytest.mark.parametrize(("tls", "examples"), [(False, 80), (True, 15)], ids=["plain", "tls"])
def test_any_fragments_are_a_message_or_the_end_and_leave_nothing_behind(node: Node, tls: bool, examples: int) -> None:
    run_state_machine_as_test(
        lambda: DIMSEMachine(node, tls=tls), settings=settings(max_examples=examples, stateful_step_count=15)
    )
    assert echo_milliseconds(node) < 1000
