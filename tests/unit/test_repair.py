"""What a start and a death put right, and what they say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert
from support.segments import extents, forget

from radnode import repair
from radnode.audit import events, files
from radnode.configuration import load_settings
from radnode.initialise import initialise
from radnode.jobs.database import reading, transaction
from radnode.jobs.schema import jobs
from radnode.jobs.wake import Sleeper
from radnode.model import JobKind
from radnode.node import Node
from radnode.repair import Repaired
from radnode.storage.sealing import Kind

OWNERS = ("worker:11:a", "worker:12:b", "deliver:13:c")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(load_settings(initialise(tmp_path / "node", 2762, None)))


def hold_leases(node: Node) -> None:
    job = {"kind": JobKind.ANALYSE, "state": "leased", "due": 0, "created": 0, "updated": 0, "expires": 4e9}
    with transaction(node.engine) as tx:
        tx.execute(insert(jobs), [{**job, "subject": owner, "owner": owner, "token": "t"} for owner in OWNERS])


def still_held(node: Node) -> list[str]:
    with reading(node.engine) as tx:
        return list(tx.scalars(jobs.select().with_only_columns(jobs.c.owner).where(jobs.c.state == "leased")))


def test_nothing_to_repair_is_nothing_to_say(node: Node) -> None:
    assert repair.at_start(node, ("intake", "worker", "deliver")) == Repaired()


def test_start_gives_back_what_dead_processes_held_and_counts_it(node: Node) -> None:
    hold_leases(node)
    node.vault.put("study", Kind.INSTANCE, b"nobody names this")
    forget(node.vault._objects)
    run = node.settings.data_dir / "run"
    sleepers = [Sleeper(run, role) for role in ("worker", "sequencer")]
    for _ in range(3):
        node.record(events.NODE_STARTED, node.actor())
    node.settle_trail()
    node.record(events.NODE_STOPPED, node.actor())
    [trail] = [path for _, path in files.segments(node.audit_folder)]
    trail.write_bytes(trail.read_bytes() + b'{"seq":4')
    assert repair.at_start(node, ("intake", "worker", "deliver")) == Repaired(3, 1, 1, 1, 8)
    assert still_held(node) == []
    assert extents(node.settings.data_dir / "objects") == {}
    assert [path.name.split("-")[0] for path in run.glob("*.sock")] == ["sequencer"]
    node.settle_trail()
    assert repair.at_start(node, ("intake", "worker", "deliver")) == Repaired()
    for sleeper in sleepers:
        sleeper.close()


def test_death_of_one_process_gives_back_its_own_leases_and_no_others(node: Node) -> None:
    hold_leases(node)
    assert repair.after_death(node, "worker", 1) == Repaired()  # no process was called 1, though 11 and 12 begin so
    assert repair.after_death(node, "worker", 11) == Repaired(leases=1)
    assert still_held(node) == ["worker:12:b", "deliver:13:c"]


def test_end_of_the_trail_is_found_in_its_last_segment(tmp_path: Path) -> None:
    assert files.end_of_trail(tmp_path / "missing") == (0, 0)
    assert files.end_of_trail(tmp_path) == (0, 0)
    (tmp_path / files.segment_name(1)).write_bytes(b"{}\n{}\n")
    assert files.end_of_trail(tmp_path) == (2, 0)
    (tmp_path / files.segment_name(3)).write_bytes(b"{")
    assert files.end_of_trail(tmp_path) == (2, 1)
    (tmp_path / files.segment_name(3)).write_bytes(b"{}\n{}\n{")
    assert files.end_of_trail(tmp_path) == (4, 1)
