"""Detection: what is out of the ordinary is told once in a while, and what is ordinary is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from radnode.audit import detection, events
from radnode.audit.detection import Detector, Suspicion
from radnode.audit.events import Actor, Event
from radnode.settings import DetectionSettings

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PEER = Actor(ae="CT1", address="192.0.2.7")
PERSON = Actor(user="jane")


def watch(
    settings: DetectionSettings, event: Event, actor: Actor, moments: list[float], patients: str = "p"
) -> list[tuple[int, Suspicion]]:
    """What is said of entries at these seconds after noon, each with the number of the entry that it was said at."""
    detector, said = Detector(settings), []
    for number, seconds in enumerate(moments):
        entry = {
            "seq": number + 1,
            "timestamp": (NOON + timedelta(seconds=seconds)).isoformat(),
            "event": event.label,
            "action": event.action.value,
            "actor": {name: getattr(actor, name) for name in Actor.__slots__},
            "patient": patients[number % len(patients)],
        }
        said += [(number + 1, suspicion) for suspicion in detector.see(entry)]
    return said


def test_repeated_refusals_are_told_once_in_a_while() -> None:
    settings = DetectionSettings(refusals=5, refusals_seconds=60, quiet_seconds=1000)
    said = watch(settings, events.PEER_REFUSED, PEER, [float(second) for second in range(30)])
    assert said == [(5, Suspicion("repeated_refusals", PEER, 5))]
    again = watch(settings, events.PEER_REFUSED, PEER, [*map(float, range(10)), *(2000.0 + n for n in range(10))])
    assert [number for number, _ in again] == [5, 15]


def test_refusals_that_lie_far_apart_are_ordinary() -> None:
    settings = DetectionSettings(refusals=5, refusals_seconds=60)
    assert watch(settings, events.PEER_REFUSED, PEER, [20.0 * number for number in range(100)]) == []


def test_peer_that_sends_more_than_a_modality_makes_is_told() -> None:
    settings = DetectionSettings(images_per_hour=50)
    said = watch(settings, events.IMAGE_RECEIVED, PEER, [float(second) for second in range(200)])
    assert said == [(51, Suspicion("unusual_volume", PEER, 51))]
    assert watch(settings, events.IMAGE_RECEIVED, PEER, [100.0 * number for number in range(200)]) == []


def test_person_who_reads_many_patients_is_told_and_the_same_patient_counts_once() -> None:
    settings = DetectionSettings(patients_per_hour=3)
    moments = [float(second) for second in range(20)]
    assert watch(settings, events.RESULT_READ, PERSON, moments, "abc") == []
    assert watch(settings, events.RESULT_READ, PERSON, moments, "abcd") == [
        (4, Suspicion("unusual_reading", PERSON, 4))
    ]


@pytest.mark.parametrize(
    ("hours", "hour", "says"),
    [
        ("", 3, False),
        ("07:00-19:00", 12, False),
        ("07:00-19:00", 7, False),
        ("07:00-19:00", 19, True),
        ("07:00-19:00", 3, True),
        ("22:00-06:00", 23, False),
        ("22:00-06:00", 5, False),
        ("22:00-06:00", 12, True),
    ],
)
def test_reading_out_of_hours_is_told_of_people_alone(hours: str, hour: int, says: bool) -> None:
    settings = DetectionSettings(hours=hours)
    local = NOON.astimezone().replace(hour=hour, minute=0)
    at = (local - NOON).total_seconds()
    said = watch(settings, events.RESULT_READ, PERSON, [at, at + 1])
    assert [suspicion.rule for _, suspicion in said] == (["read_out_of_hours"] if says else [])
    assert watch(settings, events.RESULT_READ, Actor(ae="RADNODE", user="radnode"), [at]) == []


def test_nothing_is_watched_where_nothing_is_wanted() -> None:
    settings = DetectionSettings(refusals=0, images_per_hour=0, patients_per_hour=0)
    for event in events.CATALOGUE.values():
        assert watch(settings, event, PEER, [float(number) for number in range(200)], "abcdefgh") == []


def test_memory_of_actors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MOST_ACTORS", 50)
    detector = Detector(DetectionSettings(refusals=1))
    for number in range(500):
        entry = {
            "seq": number + 1,
            "timestamp": NOON.isoformat(),
            "event": events.PEER_REFUSED.label,
            "action": "E",
            "actor": {"ae": None, "certificate": None, "address": f"10.0.0.{number}", "user": None},
            "patient": None,
        }
        assert [suspicion.count for suspicion in detector.see(entry)] == [1]
    assert len(detector._moments) <= 50
    assert len(detector._told) <= 50


@pytest.mark.parametrize("hours", ["7-19", "24:00-06:00", "07:00", "07:00-19:60"])
def test_hours_that_are_none_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="hours"):
        DetectionSettings(hours=hours)
