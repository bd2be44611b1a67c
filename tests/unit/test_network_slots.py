"""Slots of associations: limits over several processes, and free again when their holder is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.node import wait_for
from support.rooms import modes

from radnode.errors import StoreUnavailable
from radnode.network.slots import Slots

HOLDER = """
import sys, time
from pathlib import Path
from radnode.network.slots import Slots
slots = Slots(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    assert slots.take("CT1", 10) is not None and slots.take(None, 10) is not None
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "associations.lock"


@contextmanager
def another_process(path: Path, associations: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the slots of so many associations of CT1 until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(path), str(associations)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


def take_all(slots: Slots, ae_title: str | None, limit: int) -> list[int]:
    """Take slots until there are no more."""
    taken = []
    while (slot := slots.take(ae_title, limit)) is not None:
        taken.append(slot)
    return taken


def test_lock_file_is_private(path: Path) -> None:
    Slots(path)
    assert modes([path]) == {0o600}


def test_lock_file_that_cannot_be_made_is_store_unavailable(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        Slots(path)


def test_slots_of_another_process_count_until_it_is_killed(path: Path) -> None:
    slots = Slots(path)
    with another_process(path, 3) as holder:
        mine = take_all(slots, "CT1", 5)
        assert len(mine) == 2
        assert len(take_all(slots, "CT2", 5)) == 5
        assert len(take_all(slots, None, 4)) == 1
        holder.kill()
        holder.wait(10)
        wait_for(lambda: len(mine) == 5 or mine.extend(take_all(slots, "CT1", 5)), 5, "its slots are free")
        assert len(take_all(slots, None, 4)) == 3


def test_slot_that_was_given_back_is_for_others(path: Path) -> None:
    first, second = Slots(path), Slots(path)
    held = take_all(first, "CT1", 3)
    assert second.take("CT1", 3) is None
    first.give_back(held[1])
    assert second.take("CT1", 3) == held[1]
    assert first.take("CT1", 3) is None


def test_slots_without_a_file_are_of_this_process_alone() -> None:
    assert len(take_all(Slots(), None, 2)) == len(take_all(Slots(), None, 2)) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([None, "CT1", "CT2"]), st.booleans()), min_size=1, max_size=60
    )
)
def test_never_more_than_the_limit_and_never_fewer_than_could_be(steps: list[tuple[int, str | None, bool]]) -> None:
    limits = {None: 4, "CT1": 2, "CT2": 3}
    alone = Slots()
    processes = [alone, *(Slots(Path(f"/proc/self/fd/{alone._file}")) for _ in range(2))]
    held: list[tuple[int, str | None, int]] = []
    for process, title, gives_back in steps:
        if gives_back:
            own = [entry for entry in held if entry[:2] == (process, title)]
            if own:
                held.remove(own[0])
                processes[process].give_back(own[0][2])
            continue
        slot = processes[process].take(title, limits[title])
        running = sum(entry[1] == title for entry in held)
        assert (slot is None) == (running == limits[title])
        if slot is not None:
            held.append((process, title, slot))
