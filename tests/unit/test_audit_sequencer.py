"""The sequencer: every committed row once and in order, durable before it is signed, never over a broken trail."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, delete, update

from radnode.audit import events, files, notes
from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, audit_entries, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.tree import Tree, leaf_hash
from radnode.audit.verify import Verification, verify
from radnode.errors import AuditError

ORIGIN = "radnode.example/audit"
SIGNER = Signer.generate(ORIGIN)
LOG = AuditLog(bytes(32))


class Node:
    """A database and an audit folder."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "radnode.db"
        self.trail = folder / "audit"
        self.key = folder / "audit.pub"
        self.key.write_text(f"{SIGNER.verifier}\n")
        self.engine: Engine = create_engine(f"sqlite:///{self.database}")
        metadata.create_all(self.engine)

    def add(self, count: int) -> None:
        with self.engine.begin() as connection:
            for number in range(count):
                record = AuditRecord(events.IMAGE_RECEIVED, Actor(ae="CT1"), detail={"count": number})
                LOG.record(connection, record)

    def sequencer(self, **options: int) -> Sequencer:
        return Sequencer(self.engine, self.trail, SIGNER, ORIGIN, **options)

    def lines(self) -> list[bytes]:
        return b"".join(path.read_bytes() for path in sorted(self.trail.glob("*.jsonl"))).split(b"\n")[:-1]

    def notes(self) -> list[Checkpoint]:
        blocks = b"".join(path.read_bytes() for path in sorted(self.trail.glob("checkpoints/*"))).decode().split("\n\n")
        pairs = zip(blocks[0:-1:2], blocks[1:-1:2], strict=True)
        return [Checkpoint.from_text(SIGNER.verifier.open(f"{body}\n\n{end}\n")) for body, end in pairs]

    def verified(self) -> Verification:
        return verify(self.trail, self.key, self.database)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.engine.dispose()


def test_rows_become_lines_in_order_with_chain_tree_and_checkpoint(node: Node) -> None:
    node.add(5)
    with node.sequencer() as sequencer:
        assert sequencer.step() == 5
        assert sequencer.step() == 0
        assert sequencer.size == 5
    tree, prev = Tree(), "0" * 64
    for number, line in enumerate(node.lines(), start=1):
        entry = json.loads(line)
        assert (entry["seq"], entry["prev"]) == (number, prev)
        prev = leaf_hash(line).hex()
        tree.append(leaf_hash(line))
    (note,) = node.notes()
    assert (note.size, note.root) == (5, tree.root())
    assert node.verified() == Verification(True, 5, 1, 5)


def test_checkpoint_is_signed_only_when_entries_came(node: Node) -> None:
    with node.sequencer() as sequencer:
        assert sequencer.checkpoint() is None
        node.add(1)
        sequencer.step()
        assert sequencer.checkpoint() is not None
        assert sequencer.checkpoint() is None
    assert [note.size for note in node.notes()] == [1]


def test_more_rows_than_one_batch_are_all_copied_on_close(node: Node) -> None:
    node.add(2500)
    with node.sequencer():
        pass
    assert node.verified() == Verification(True, 2500, 1, 2500)


def test_segments_rotate_by_size_and_are_named_by_their_first_entry(node: Node) -> None:
    with node.sequencer(segment_bytes=2000) as sequencer:
        for _ in range(10):
            node.add(3)
            sequencer.step()
    names = sorted(path.name for path in node.trail.glob("*.jsonl"))
    assert len(names) > 2
    assert [int(name[6:18]) for name in names] == [
        json.loads((node.trail / name).read_bytes().split(b"\n")[0])["seq"] for name in names
    ]
    assert node.verified().ok
    with node.sequencer(segment_bytes=2000):
        node.add(1)
    assert node.verified() == Verification(True, 31, 2, 31)


def test_only_one_sequencer_at_a_time(node: Node) -> None:
    first, second = node.sequencer(), node.sequencer()
    assert first.acquire()
    assert not second.acquire(blocking=False)
    first.close()
    assert second.acquire(blocking=False)
    second.close()


def test_without_the_lock_nothing_is_written(node: Node) -> None:
    node.add(1)
    with pytest.raises(AuditError, match="acquire"):
        node.sequencer().step()
    assert not node.trail.exists()


def test_folders_and_files_are_private_whatever_the_umask(node: Node) -> None:
    node.add(1)
    before = os.umask(0)
    try:
        with node.sequencer():
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [node.trail, *node.trail.rglob("*")]}
    assert {modes.pop("audit"), modes.pop("checkpoints")} == {0o700}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3


def test_run_is_less_than_100_ms_behind_and_signs_at_the_end(node: Node) -> None:
    stop = threading.Event()
    sequencer = node.sequencer()
    sequencer.acquire()
    thread = threading.Thread(target=sequencer.run, args=(stop,))
    thread.start()
    delays = []
    for number in range(1, 11):
        node.add(1)
        begun = time.monotonic()
        while sequencer.size < number and time.monotonic() - begun < 5:
            time.sleep(0.001)
        delays.append(time.monotonic() - begun)
    stop.set()
    thread.join()
    sequencer.close()
    assert sorted(delays)[5] < 0.1
    assert node.verified().signed == 10


def test_commits_in_quick_succession_share_batches_and_are_in_the_trail_within_100_ms(node: Node) -> None:
    stop, steps = threading.Event(), list[int]()
    sequencer = node.sequencer()
    sequencer.acquire()
    step = sequencer.step
    sequencer.step = lambda: steps.append(step()) or steps[-1]

    thread = threading.Thread(target=sequencer.run, args=(stop,))
    thread.start()
    delays = []
    begun = time.monotonic()
    for number in range(1, 201):
        node.add(1)
        if number % 40 == 0:
            added = time.monotonic()
            while sequencer.size < number and time.monotonic() - added < 5:
                time.sleep(0.001)
            delays.append(time.monotonic() - added)
    elapsed = time.monotonic() - begun
    stop.set()
    thread.join()
    sequencer.close()
    assert sum(steps) == 200
    assert len([copied for copied in steps if copied]) <= elapsed / 0.05 + 2
    assert sorted(delays)[2] < 0.1
    assert node.verified().signed == 200


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


def test_full_disk_leaves_the_trail_whole_and_recovers_by_itself(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    sequencer = node.sequencer()
    sequencer.acquire()
    node.add(2)
    sequencer.step()
    before = node.lines()
    real = os.write

    def half(handle: int, data: memoryview) -> int:
        if len(data) < 200:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data[: len(data) // 2])

    node.add(3)
    monkeypatch.setattr(files.os, "write", half)
    with pytest.raises(AuditError, match="No space left on device"):
        sequencer.step()
    assert node.lines() == before
    with pytest.raises(AuditError):
        sequencer.checkpoint()
    monkeypatch.undo()
    assert sequencer.step() == 3
    sequencer.close()
    assert node.verified() == Verification(True, 5, 1, 5)


def test_append_that_could_not_be_undone_is_undone_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = files.AppendFile(tmp_path / "file")
    file.append(b"one\n")

    def fails(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fails)
    monkeypatch.setattr(files.os, "ftruncate", fails)
    with pytest.raises(AuditError, match="Input/output error"):
        file.append(b"two, lost\n")
    monkeypatch.undo()
    file.append(b"two\n")
    file.close()
    assert file.path.read_bytes() == b"one\ntwo\n"


def test_lines_are_durable_before_a_checkpoint_covers_them(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_sync, real_write = os.fsync, os.write
    monkeypatch.setattr(files.os, "fsync", lambda handle: calls.append(f"fsync {name(handle)}") or real_sync(handle))
    monkeypatch.setattr(files.os, "write", lambda h, d: calls.append(f"write {name(h)}") or real_write(h, d))

    def name(handle: int) -> str:
        return Path(f"/proc/self/fd/{handle}").readlink().suffix

    node.add(1)
    with node.sequencer():
        pass
    appended = [call for call in calls if call[-1] != " "]
    assert appended == ["write .jsonl", "fsync .jsonl", "write .notes", "fsync .notes"]


def test_origin_must_be_the_name_of_the_key(node: Node) -> None:
    with pytest.raises(AuditError, match="origin"):
        Sequencer(node.engine, node.trail, SIGNER, "elsewhere")


def test_unusable_folder_is_an_audit_error(node: Node) -> None:
    node.trail.write_text("a file")
    with pytest.raises(AuditError, match="audit folder"):
        node.sequencer().acquire()


def test_database_that_does_not_answer_is_an_audit_error(node: Node) -> None:
    sequencer = node.sequencer()
    sequencer.acquire()
    metadata.drop_all(node.engine)
    with pytest.raises(AuditError, match="cannot be read"):
        sequencer.step()
    sequencer.release()
