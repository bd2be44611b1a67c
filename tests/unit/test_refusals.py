"""What listeners do not keep: an entry for each object that is refused for what it is, one alert for own trouble."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rooms import PEER, Rooms

from radnode import refusals
from radnode.audit.events import Actor
from radnode.errors import DuplicateInstance, KeyUnavailable, MalformedDataSet, NodeFull, UnknownOperation
from radnode.refusals import Refusals


class Log:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, event: str, **_: Any) -> None:
        self.errors.append(event)


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    rooms.close()


def listener(rooms: Rooms, log: Log | None = None) -> Refusals:
    return Refusals(rooms.stores, Actor(ae="RADNODE", user="radnode"), log or Log())


def told(rooms: Rooms) -> list[tuple[str, dict[str, Any]]]:
    return [(entry["event"].split()[1], entry["detail"]) for entry in rooms.entries()]


def test_object_that_is_refused_is_an_entry_with_its_status_and_pseudonym(rooms: Rooms) -> None:
    listener(rooms).declined(PEER, "1.2.3", MalformedDataSet("words"))
    assert told(rooms) == [("image_refused", {"status": "C000", "reason": "MalformedDataSet"})]
    [entry] = rooms.entries()
    assert entry["instance"] == rooms.pseudonyms.instance("1.2.3")
    assert entry["actor"]["ae"] == "MODALITY1"


def test_request_about_no_object_is_an_alert_and_what_others_account_for_is_nothing(rooms: Rooms) -> None:
    one = listener(rooms)
    one.declined(PEER, None, UnknownOperation("words"))
    one.declined(PEER, "1.2.3", DuplicateInstance("words"))
    one.declined(PEER, "1.2.3", NodeFull("words"))
    one.look()
    rule = {"rule": "request_not_served", "status": "0211", "reason": "UnknownOperation"}
    assert told(rooms) == [("alert", rule)]


def test_trouble_is_one_alert_of_all_listeners_and_another_after_the_pause(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "RETRY_SECONDS", 0.0)
    both = [listener(rooms), listener(rooms)]
    for _ in range(3):
        for one in both:
            one.declined(PEER, "1.2.3", KeyUnavailable("words"))
            one.look()
    assert [(name, detail["count"]) for name, detail in told(rooms)] == [("alert", 1)]
    rooms.now += refusals.PAUSE_SECONDS + 1
    for one in both:
        one.look()
    assert [detail["count"] for _, detail in told(rooms)] == [1, 2]
    rooms.now += refusals.PAUSE_SECONDS + 1
    for one in both:
        one.look()
    assert [detail["count"] for _, detail in told(rooms)] == [1, 2, 3]


def test_trouble_that_cannot_be_written_is_kept_until_it_can(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "RETRY_SECONDS", 0.0)
    log = Log()
    one = listener(rooms, log)
    one.failed("ValueError")
    with sqlite3.connect(rooms.folder / "node.db") as connection:
        connection.execute("CREATE TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'x'); END")
    one.look()
    assert (told(rooms), log.errors) == ([], ["audit_failed"])
    with sqlite3.connect(rooms.folder / "node.db") as connection:
        connection.execute("DROP TRIGGER broken")
    connection.close()
    one.look()
    [(name, detail)] = told(rooms)
    assert (name, detail["count"], detail["reason"]) == ("alert", 1, "ValueError")
