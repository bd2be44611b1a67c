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
from support.sequenced import SIGNER, Node

from radnode.audit import files
from radnode.audit.log import metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.tree import Tree, leaf_hash
from radnode.audit.verify import Verification
from radnode.errors import AuditError


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
