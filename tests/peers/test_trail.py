"""The trail of a node that has stopped: it verifies as it is, and no longer once anybody has touched it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import films
from support.node import NodeProcess, radnode, wait_for
from support.segments import extents
from support.strangers import answer

Lines = list[bytes]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that took films, refused a stranger, and has stopped."""
    folder = tmp_path_factory.mktemp("trail")
    paths = []
    for number in range(6):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(films.file_bytes(films.fresh(films.MR)))
    with NodeProcess(folder / "node") as node:
        node.start(role="intake", wait=("intake", "sequencer"))
        assert node.storescu(paths).returncode == 0
        assert answer(node.port, None, b"noise") == b""
        wait_for(lambda: node.trail("peer_refused"), 5, "the stranger is in the trail")
        assert node.stop() == 0
        yield node


def _change_one_byte(lines: Lines) -> tuple[Lines, int]:
    at = next(index for index, line in enumerate(lines) if b"image_received" in line)
    return [*lines[:at], lines[at].replace(b"MODALITY1", b"MODALITY2"), *lines[at + 1 :]], at + 1


def _remove_one(lines: Lines) -> tuple[Lines, int]:
    return lines[:4] + lines[5:], 5


def _swap_two(lines: Lines) -> tuple[Lines, int]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]], 4


def _cut_the_tail(lines: Lines) -> tuple[Lines, int]:
    return lines[:-2], len(lines) - 1


TOUCHES = {
    "one byte changed": _change_one_byte,
    "one line removed": _remove_one,
    "two swapped": _swap_two,
    "tail cut": _cut_the_tail,
}


def test_trail_begins_and_ends_with_the_life_of_the_node(stopped: NodeProcess) -> None:
    names = [entry["event"] for entry in stopped.trail()]
    assert names.count("110100 node_started") == names.count("110100 node_stopped") == 1
    assert {names[0], names[1]} == {"110100 node_started", "110113 recording_started"}
    assert names[-2:] == ["110100 node_stopped", "110113 recording_stopped"]
    assert names.count("110104 image_received") == 6
    assert names.count("110113 peer_refused") == 1


def test_untouched_trail_verifies(stopped: NodeProcess) -> None:
    verified = stopped.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    entries = len(stopped.trail())
    assert re.fullmatch(
        rf"audit verify: ok, {entries} entries, \d+ checkpoints \({stopped.folder / 'audit'}\)\n", verified.stdout
    )


@pytest.mark.parametrize("database", [True, False], ids=["beside its database", "from the files alone"])
@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_touched_trail_is_broken_at_the_entry_that_verify_names(
    stopped: NodeProcess, tmp_path: Path, touch: Callable[[Lines], tuple[Lines, int]], database: bool
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stopped.folder, copy)
    segment = min((copy / "audit").glob("trail-*.jsonl"))  # at midnight there is a second one, with the end
    lines, bad = touch(segment.read_bytes().splitlines(keepends=True))
    segment.write_bytes(b"".join(lines))
    if not database:
        for path in copy.glob("node.db*"):
            path.unlink()
    told = radnode("audit", "verify", "-c", copy / "radnode.toml")
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.startswith(f"audit verify: BROKEN, entry {bad}: ")
    assert len(told.stdout.splitlines()) == 1


@pytest.mark.parametrize("drain_seconds", [20, 0.2], ids=["with time to drain", "cut short"])
def test_storescu_that_runs_at_sigterm_gets_success_only_for_what_is_kept(tmp_path: Path, drain_seconds: float) -> None:
    paths = [tmp_path / f"{number:03}.dcm" for number in range(150)]
    for path in paths:
        path.write_bytes(films.file_bytes(films.fresh(films.MR)))
    patience = {"RADNODE_NODE__DRAIN_SECONDS": str(drain_seconds)}
    with NodeProcess(tmp_path / "node", overrides=patience) as node:
        node.start(role="intake", wait=("intake", "sequencer"))
        command = node.storescu_command(paths)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sending:
            assert sending.stdout is not None
            said = [next(line for line in sending.stdout if "Received Store Response" in line)]
            code = node.stop()  # SIGTERM in the middle of the push
            said += sending.stdout.readlines()
        successes = sum("Received Store Response (Success)" in line for line in said)
        assert code == 0
        assert 1 <= successes <= len(paths)
        assert (sending.returncode == 0) == (successes == len(paths))
        kept = len(node.trail("image_received"))
        assert successes <= kept <= successes + 1  # one may be kept whose answer was cut off
        assert len(node.rows("jobs", "list")) == kept
        assert len(extents(node.folder / "objects")) == kept
        assert node.trail()[-2]["event"] == "110100 node_stopped"
        assert node.run("audit", "verify").returncode == 0
