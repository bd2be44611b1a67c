"""Images are refused before there is trouble and accepted again after: one line and one audit entry at each change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.recorder import Recorder
from support.rooms import Rooms

from radnode import pressure
from radnode.audit.events import Actor
from radnode.errors import NodeFull
from radnode.jobs.database import transaction
from radnode.jobs.holds import Hold, held
from radnode.model import JobKind
from radnode.pressure import Pressure
from radnode.settings import QueueSettings, StorageSettings

ACTOR = Actor(ae="RADNODE", user="test")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Gate:
    """Two listeners' views of one node."""

    def __init__(self, rooms: Rooms, max_waiting: int = 10, low_disk_percent: float = 0.0) -> None:
        self.rooms = rooms
        self.log = Recorder()
        settings = QueueSettings(max_waiting=max_waiting), StorageSettings(low_disk_percent=low_disk_percent)
        self.first, self.second = (Pressure(rooms.stores, rooms.folder, *settings, ACTOR, self.log) for _ in range(2))

    def look(self) -> None:
        self.first.look()
        self.second.look()

    @property
    def refuses(self) -> list[bool]:
        return [_refuses(self.first), _refuses(self.second)]

    @property
    def audited(self) -> list[dict[str, object]]:
        return [entry["detail"] for entry in self.rooms.entries() if entry["event"] == "110113 alert"]

    def add(self, *numbers: int) -> None:
        with transaction(self.rooms.engine) as tx:
            self.rooms.queue.add_all(tx, JobKind.ANALYSE, [f"image-{number}" for number in numbers])

    def finish(self, count: int) -> None:
        for lease in self.rooms.queue.lease(JobKind.ANALYSE, "worker:1", 60, count):
            with transaction(self.rooms.engine) as tx:
                self.rooms.queue.finish(tx, lease)


def _refuses(one: Pressure) -> bool:
    try:
        one.check()
    except NodeFull as error:
        assert error.status == 0xA700
        return True
    return False


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    found = Rooms(tmp_path)
    yield found
    found.close()


def test_full_queue_is_refused_by_every_listener_until_it_is_back_behind_the_lower_mark(rooms: Rooms) -> None:
    gate = Gate(rooms)
    gate.add(*range(10))
    gate.look()
    assert gate.refuses == [False, False]
    gate.add(10)
    gate.look()
    assert gate.refuses == [True, True]
    gate.finish(1)
    gate.look()
    assert gate.refuses == [True, True]  # ten wait, and the lower mark is nine
    gate.finish(1)
    gate.look()
    assert gate.refuses == [False, False]
    assert gate.log.events() == ["refusing_images", "accepting_images"]
    assert gate.audited == [
        {"change": "refusing_images", "count": 11, "rule": "queue_full"},
        {"change": "accepting_images", "count": 9, "rule": "queue_full"},
    ]


def test_process_that_starts_meanwhile_refuses_too_and_says_nothing_again(rooms: Rooms) -> None:
    gate = Gate(rooms)
    gate.add(*range(11))
    gate.look()
    gate.finish(1)
    again = Gate(rooms)
    again.look()
    assert again.refuses == [True, True]
    assert again.log.lines == []
    assert len(gate.audited) == 1


def test_mark_of_zero_refuses_nothing_and_lets_go_of_what_another_mark_refused(rooms: Rooms) -> None:
    gate = Gate(rooms)
    gate.add(*range(11))
    gate.look()
    unlimited = Gate(rooms, max_waiting=0)
    unlimited.look()
    assert unlimited.refuses == [False, False]
    assert held(rooms.engine) == {}


def test_low_disk_is_refused_until_a_tenth_more_than_the_mark_is_free(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(rooms, low_disk_percent=10)
    refused = []
    for free in (101, 99, 105, 109, 111):
        monkeypatch.setattr(pressure.shutil, "disk_usage", lambda _, free=free: Usage(2000, 1000 - free, free))
        gate.look()
        refused.append(gate.refuses)
    assert refused == [[False] * 2, [True] * 2, [True] * 2, [True] * 2, [False] * 2]
    assert gate.log.events() == ["refusing_images", "accepting_images"]


def test_disk_too_full_to_write_that_down_is_refused_all_the_same(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(rooms, low_disk_percent=10)
    monkeypatch.setattr(pressure.shutil, "disk_usage", lambda _: Usage(1000, 999, 1))
    monkeypatch.setattr("radnode.jobs.database.BUSY_SECONDS", 0.2)
    with transaction(rooms.engine):  # nobody else can write
        gate.look()
        gate.look()
    assert gate.refuses == [True, True]
    assert gate.log.events() == ["pressure_unknown", "pressure_unknown"]  # each process says it once
    gate.look()
    assert list(held(rooms.engine)) == [Hold.DISK_LOW]
    assert gate.log.events()[2:] == ["refusing_images"]
