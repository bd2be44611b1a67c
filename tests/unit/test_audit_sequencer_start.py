"""What a sequencer finds at its start: what a crash left is mended, what somebody did is not papered over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from support.sequenced import Node

from radnode.audit import notes
from radnode.audit.log import audit_entries
from radnode.audit.verify import Verification
from radnode.errors import AuditError


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.engine.dispose()


@pytest.mark.parametrize("kept", [1, 50, -1])
def test_torn_last_line_is_written_anew(node: Node, kept: int) -> None:
    node.add(3)
    with node.sequencer():
        pass
    whole = node.lines()
    node.add(1)
    sequencer = node.sequencer()
    sequencer.acquire()
    sequencer.step()
    sequencer.release()
    path = next(node.trail.glob("*.jsonl"))
    data = path.read_bytes()
    start = sum(len(line) + 1 for line in whole)
    path.write_bytes(data[:start] + data[start:][:kept])
    with node.sequencer():
        pass
    assert path.read_bytes() == data
    assert node.verified() == Verification(True, 4, 2, 4)


def test_torn_last_checkpoint_is_dropped(node: Node) -> None:
    for _ in range(2):
        node.add(2)
        with node.sequencer():
            pass
    path = next(node.trail.glob("checkpoints/*"))
    data = path.read_bytes()
    for cut in [*range(len(data) // 2 + 1, len(data), 9), len(data) - 1]:
        path.write_bytes(data[:cut])
        assert node.verified().ok
        with node.sequencer():
            pass
        assert node.verified() == Verification(True, 4, 2, 4)
        assert [note.size for note in node.notes()] == [2, 4]


def test_lines_without_checkpoint_are_kept_and_signed_at_the_next_start(node: Node) -> None:
    node.add(3)
    sequencer = node.sequencer()
    sequencer.acquire()
    sequencer.step()
    sequencer.release()
    before = node.lines()
    assert not node.verified().ok
    with node.sequencer():
        pass
    assert node.lines() == before
    assert node.verified() == Verification(True, 3, 1, 3)


def test_clock_that_jumps_back_keeps_the_order(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.add(1)
    with node.sequencer():
        pass

    class Yesterday(notes.datetime):
        @classmethod
        def now(cls, zone: object = None) -> notes.datetime:
            return super().now(zone) - notes.datetime.resolution * 86_400_000_000

    monkeypatch.setattr(notes, "datetime", Yesterday)
    node.add(1)
    with node.sequencer():
        pass
    assert len(list(node.trail.glob("checkpoints/*"))) == 2
    monkeypatch.undo()
    node.add(1)
    with node.sequencer():
        pass
    assert node.verified() == Verification(True, 3, 3, 3)


def damaged(node: Node) -> Path:
    node.add(6)
    with node.sequencer(segment_bytes=1):
        pass
    node.add(6)
    with node.sequencer(segment_bytes=1):
        pass
    assert node.verified().ok
    return sorted(node.trail.glob("*.jsonl"))[-1]


def refused(node: Node, message: str) -> None:
    state = {path: path.read_bytes() for path in node.trail.rglob("*") if path.is_file()}
    with pytest.raises(AuditError, match=message):
        node.sequencer().acquire()
    assert {path: path.read_bytes() for path in node.trail.rglob("*") if path.is_file()} == state


def test_trail_shorter_than_signed_is_not_papered_over(node: Node) -> None:
    path = damaged(node)
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n")
    refused(node, "ends before what its newest checkpoint signed; run radnode audit verify")


def test_torn_line_under_a_checkpoint_is_not_papered_over(node: Node) -> None:
    path = damaged(node)
    path.write_bytes(path.read_bytes()[:-1])
    refused(node, "ends before")


def test_changed_last_line_is_not_papered_over(node: Node) -> None:
    path = damaged(node)
    path.write_bytes(path.read_bytes().replace(b'"count":5', b'"count":6'))
    refused(node, "differs from what its newest checkpoint signed")


def test_changed_line_is_not_papered_over(node: Node) -> None:
    path = damaged(node)
    path.write_bytes(path.read_bytes().replace(b'"count":3', b'"count":9'))
    refused(node, "broken at entry 11")


def test_missing_segment_is_not_papered_over(node: Node) -> None:
    damaged(node)
    sorted(node.trail.glob("*.jsonl"))[0].unlink()
    refused(node, "broken at trail-000000000007.jsonl")


def test_foreign_checkpoint_is_not_papered_over(node: Node) -> None:
    damaged(node)
    path = next(node.trail.glob("checkpoints/*"))
    path.write_text(path.read_text().replace("\n12\n", "\n11\n"))
    refused(node, "signature of a checkpoint is wrong")


def test_database_older_than_the_trail_is_not_papered_over(node: Node) -> None:
    damaged(node)
    with node.engine.begin() as connection:
        connection.execute(delete(audit_entries).where(audit_entries.c.seq > 8))
    refused(node, "fewer audit rows than the trail")


def test_other_database_is_not_papered_over(node: Node) -> None:
    damaged(node)
    with node.engine.begin() as connection:
        connection.execute(update(audit_entries).values(entry="{}").where(audit_entries.c.seq == 12))
    refused(node, "row 12 differs")


def test_missing_row_stops_the_sequencer(node: Node) -> None:
    node.add(5)
    with node.engine.begin() as connection:
        connection.execute(delete(audit_entries).where(audit_entries.c.seq == 3))
    sequencer = node.sequencer()
    sequencer.acquire()
    with pytest.raises(AuditError, match="row 3 is missing"):
        sequencer.step()
    sequencer.release()


def test_row_with_a_line_break_stops_the_sequencer(node: Node) -> None:
    node.add(1)
    with node.engine.begin() as connection:
        connection.execute(update(audit_entries).values(entry='{"a":1}\n{"seq":2}'))
    sequencer = node.sequencer()
    sequencer.acquire()
    with pytest.raises(AuditError, match="row 1 is damaged"):
        sequencer.step()
    sequencer.release()
