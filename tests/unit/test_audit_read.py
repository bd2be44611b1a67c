"""Reading the trail: order, filters, one entry, and who accessed a patient's data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from radnode.audit import events
from radnode.audit.checkpoint import Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, metadata
from radnode.audit.read import Filter, access_logs, entries, entry
from radnode.audit.sequencer import Sequencer
from radnode.errors import AuditError, NotFoundError

PATIENTS = ("a" * 32, "b" * 32)


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Path]:
    """Ten entries in several segments; odd numbers are of the first patient, every third is a read."""
    engine = create_engine(f"sqlite:///{tmp_path / 'radnode.db'}")
    metadata.create_all(engine)
    log = AuditLog(bytes(32))
    with Sequencer(engine, tmp_path / "audit", Signer.generate("a.example"), "a.example", segment_bytes=900) as writer:
        for number in range(1, 11):
            with engine.begin() as connection:
                log.record(
                    connection,
                    AuditRecord(
                        events.RESULT_READ if number % 3 == 0 else events.IMAGE_RECEIVED,
                        Actor(user="erika"),
                        patient=PATIENTS[(number + 1) % 2],
                        study=f"{number % 5:032d}",
                        instance=f"{number:032d}",
                    ),
                )
            writer.step()
    engine.dispose()
    yield tmp_path / "audit"


def numbers(found: Iterator[dict[str, object]]) -> list[object]:
    return [one["seq"] for one in found]


def test_entries_come_oldest_first_or_newest_first(trail: Path) -> None:
    assert len(list(trail.glob("*.jsonl"))) > 2
    assert numbers(entries(trail)) == list(range(1, 11))
    assert numbers(entries(trail, newest_first=True)) == list(range(10, 0, -1))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(patient=PATIENTS[0]), [1, 3, 5, 7, 9]),
        (Filter(study="0" * 31 + "2"), [2, 7]),
        (Filter(instance=f"{4:032d}"), [4]),
        (Filter(event=events.RESULT_READ), [3, 6, 9]),
        (Filter(event=events.RESULT_READ, patient=PATIENTS[1]), [6]),
        (Filter(patient="c" * 32), []),
        (Filter(instance=PATIENTS[0]), []),
    ],
)
def test_filters_restrict(trail: Path, wanted: Filter, expected: list[int]) -> None:
    assert numbers(entries(trail, wanted)) == expected


def test_since_is_included_and_until_is_not(trail: Path) -> None:
    moments = [datetime.fromisoformat(str(one["timestamp"])) for one in entries(trail)]
    wanted = Filter(since=moments[2], until=moments[5])
    assert numbers(entries(trail, wanted)) == [3, 4, 5]


def test_zones_are_converted(trail: Path) -> None:
    tokyo = datetime.now(UTC).astimezone(datetime.strptime("+0900", "%z").tzinfo)
    assert numbers(entries(trail, Filter(since=tokyo))) == []
    assert len(numbers(entries(trail, Filter(since=tokyo - timedelta(hours=1))))) == 10


def test_one_entry_by_number(trail: Path) -> None:
    for seq in range(1, 11):
        assert entry(trail, seq)["seq"] == seq


@pytest.mark.parametrize("seq", [0, -1, 11])
def test_entry_that_does_not_exist_is_not_found(trail: Path, seq: int) -> None:
    with pytest.raises(NotFoundError, match="has no entry"):
        entry(trail, seq)


def test_access_logs_list_all_that_was_done_with_a_patients_data(trail: Path) -> None:
    found = access_logs(trail, PATIENTS[0])
    assert [one["seq"] for one in found] == [1, 3, 5, 7, 9]
    assert {one["actor"]["user"] for one in found} == {"erika"}
    assert access_logs(trail, PATIENTS[0], until=datetime(2000, 1, 1, tzinfo=UTC)) == []


def test_unfinished_last_line_is_left_out(trail: Path) -> None:
    path = sorted(trail.glob("*.jsonl"))[-1]
    path.write_bytes(path.read_bytes()[:-5])
    assert numbers(entries(trail)) == list(range(1, 10))


def test_damaged_line_is_an_audit_error(trail: Path) -> None:
    path = sorted(trail.glob("*.jsonl"))[0]
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    with pytest.raises(AuditError, match="run radnode audit verify"):
        list(entries(trail))
    with pytest.raises(AuditError, match="run radnode audit verify"):
        entry(trail, 1)
    with pytest.raises(AuditError, match="run radnode audit verify"):
        entry(trail, 2)
