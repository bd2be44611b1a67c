"""Row 27 of "Bad input and what it gets" (security.md): SIGTERM with associations open and objects on their way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from pydicom.uid import generate_uid
from support.bad_input import Target, raw_data_set, target_in
from support.network import abort, associated, command, read_pdu, store_command
from support.node import wait_for
from support.strangers import connect

from radnode.network import wire
from radnode.network.command_set import CommandSet, Tag, encode
from radnode.part10 import read_file_meta

DRAIN_SECONDS = 2.0
PIXELS = b"\xe0\x7f\x10\x00OW\x00\x00"


@pytest.fixture
def stopping(lane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A node of its own for each test, which stops it."""
    drain = {"RADNODE_NODE__DRAIN_SECONDS": str(DRAIN_SECONDS), "RADNODE_NODE__IDLE_SECONDS": "30"}
    with target_in(tmp_path_factory.mktemp(f"stopping-{lane}"), lane, **drain) as target:
        yield target


def big(uid: str) -> bytes:
    """A data set of 2 MB."""
    return raw_data_set(uid) + PIXELS + (2_000_000).to_bytes(4, "little") + bytes(2_000_000)


def pdus(uid: str, data_set: bytes) -> list[bytes]:
    """A C-STORE on context 3, PDU by PDU."""
    values = encode(store_command(AFFECTED_SOP_INSTANCE_UID=uid))
    whole = [(values, True), (data_set, False)]
    return [
        pdu for content, is_command in whole for pdu in wire.p_data(3, content, command=is_command, max_length=16384)
    ]


def store_without_end(target: Target, acknowledged: list[str], begun: threading.Event) -> None:
    """Store one object after the other on one association, until the node ends it."""
    with associated(target) as connection:
        while True:
            uid = generate_uid()
            try:
                response = command(connection, 3, store_command(AFFECTED_SOP_INSTANCE_UID=uid), raw_data_set(uid))
            except (AssertionError, OSError):  # an A-ABORT or the end of the connection in place of a response
                return
            assert response.ushort(Tag.STATUS) == 0x0000
            acknowledged.append(uid)
            begun.set()


def test_row_27_sigterm_drains_until_the_deadline_then_aborts_and_every_acknowledged_object_is_kept(
    stopping: Target,
) -> None:
    acknowledged: list[str] = []
    begun = threading.Event()
    half = generate_uid()
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        idle = stack.enter_context(associated(stopping))
        unfinished = stack.enter_context(associated(stopping))
        for pdu in pdus(half, big(half))[:50]:
            unfinished.sendall(pdu)
        pusher = pool.submit(store_without_end, stopping, acknowledged, begun)
        assert begun.wait(10)
        began = time.monotonic()
        stop = pool.submit(stopping.node.stop)
        wait_for(lambda: draining(stopping), 5, "the node drains")
        at_once = len(acknowledged)
        wait_for(lambda: is_closed(stopping.port), 1, "nobody new is let in")
        assert abort(read_pdu(idle)) == (0, 0)
        assert time.monotonic() - began > DRAIN_SECONDS * 0.8
        assert abort(read_pdu(unfinished)) == (0, 0)
        pusher.result(10)
        assert stop.result(30) == 0
    assert len(acknowledged) > at_once  # what was under way went on meanwhile
    assert time.monotonic() - began < 2 * DRAIN_SECONDS + 10  # as docs/operating.md promises
    assert stopping.kept(half) is None
    assert_kept_after_restart(stopping, {uid: raw_data_set(uid) for uid in acknowledged})


def test_row_27_object_that_stands_still_within_a_pdu_is_aborted_at_the_deadline(stopping: Target) -> None:
    half = generate_uid()
    with ThreadPoolExecutor(1) as pool, associated(stopping) as connection:
        sent = pdus(half, big(half))
        connection.sendall(b"".join(sent[:50]) + sent[50][:1000])
        began = time.monotonic()
        stop = pool.submit(stopping.node.stop)
        assert abort(read_pdu(connection)) == (0, 0)
        assert time.monotonic() - began < DRAIN_SECONDS + 5
        assert stop.result(30) == 0
    assert stopping.kept(half) is None


def test_row_27_object_that_ends_before_the_deadline_is_acknowledged_and_kept(stopping: Target) -> None:
    uid = generate_uid()
    data_set = big(uid)
    with ThreadPoolExecutor(1) as pool, associated(stopping) as connection:
        sent = pdus(uid, data_set)
        connection.sendall(b"".join(sent[:50]))
        stop = pool.submit(stopping.node.stop)
        wait_for(lambda: draining(stopping), 5, "the node drains")
        connection.sendall(b"".join(sent[50:]))
        response = CommandSet.parse(next(wire.read_p_data(read_pdu(connection)[6:]))[1])
        assert response.ushort(Tag.STATUS) == 0x0000
        connection.sendall(wire.RELEASE_RQ_PDU)
        assert read_pdu(connection)[:1] == b"\x06"
        assert stop.result(30) == 0
    assert_kept_after_restart(stopping, {uid: data_set})


def is_closed(port: int) -> bool:
    """Whether connections are refused."""
    try:
        connect(port).close()
    except ConnectionError:
        return True
    return False


def draining(target: Target) -> bool:
    return any(line["event"] == "draining" for line in target.log())


def assert_kept_after_restart(target: Target, acknowledged: dict[str, bytes]) -> None:
    """Each object is there as it was sent, and one that comes again is known."""
    target.node.start(role="intake", wait=("intake", "sequencer"))
    for uid, data_set in acknowledged.items():
        part10 = target.kept(uid)
        assert part10 is not None
        assert part10[read_file_meta(part10).offset :] == data_set
    lines = len(target.log())
    assert target.store_bytes(data_set, uid) == 0x0000
    assert [line["event"] for line in target.log()[lines:]].count("image_known") == 1
    target.assert_serves()
    verified = target.node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout
