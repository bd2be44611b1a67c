"""Rows 10 and 12 of "Bad input and what it gets" (security.md): what a peer asks for and is not served."""

from __future__ import annotations

import time

import pytest
from support import rooms
from support.bad_input import PDU_SECONDS, Target
from support.network import CT, EXPLICIT, abort, associated, pdata, read_pdu, request_pdu, store_command, value
from support.strangers import context_results

from radnode.network import wire
from radnode.network.command_set import encode

# proposed contexts, the results of them (PS3.8 Table 9-18), and the rule
CONTEXTS = {
    "unknown abstract syntax": ([("1.2.3.4", EXPLICIT), (CT, EXPLICIT)], {1: 3, 3: 0}, "context_not_accepted"),
    "unknown transfer syntax": ([(CT, "1.2.3.5"), (CT, EXPLICIT)], {1: 4, 3: 0}, "context_not_accepted"),
    "both, and nothing else": ([("1.2.3.4", EXPLICIT), (CT, "1.2.3.5")], {1: 3, 3: 4}, "context_not_accepted"),
}


@pytest.mark.parametrize(("offers", "results", "rule"), CONTEXTS.values(), ids=CONTEXTS)
def test_row_10_context_that_is_not_accepted_has_its_result(target: Target, offers, results, rule: str) -> None:
    with target.attacked(rule), target.connect() as connection:
        connection.sendall(request_pdu(offers=offers))
        accepted = read_pdu(connection)
        assert accepted[:1] == b"\x02"
        assert context_results(accepted) == results
        connection.sendall(wire.RELEASE_RQ_PDU)
        assert read_pdu(connection)[:1] == b"\x06"


def test_row_12_unfinished_command_set_is_aborted_at_the_deadline(target: Target) -> None:
    with target.attacked("message_timeout"), associated(target) as connection:
        began = time.monotonic()
        connection.sendall(pdata(value(3, 1, encode(store_command())[:40])))
        abort(read_pdu(connection))
        assert PDU_SECONDS / 2 < time.monotonic() - began < PDU_SECONDS + 1


def test_row_12_command_set_without_end_is_aborted(target: Target) -> None:
    with target.attacked("message_malformed", peak=8 << 20), associated(target) as connection:
        for _ in range(3):
            connection.sendall(pdata(value(3, 1, bytes(60_000))))
        assert abort(read_pdu(connection)) == (2, 6)


@pytest.mark.parametrize(("field", "status"), [(0x0199, 0x0211), (0x0002, 0x0211), (0x0020, 0x0122), (0x0140, 0x0122)])
def test_row_12_command_that_is_not_served_gets_its_status(target: Target, field: int, status: int) -> None:
    with target.attacked(f"{status:04X}"):
        assert target.store(rooms.small(), COMMAND_FIELD=field) == status
