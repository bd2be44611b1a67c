"""The index: which sealed objects it names, found without reading its tables from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import LargeBinary, event
from support.rooms import database

from radnode.jobs import schema
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import _NAMES, InstanceRow, ResultRow, add_instance, add_result, objects_beginning

SEGMENTS = [bytes(12), bytes(11) + b"\1", b"\x01" + b"\xff" * 11, b"\x02" + bytes(11), b"\xff" * 11 + b"\xfe"]


def ids(segment: bytes) -> list[bytes]:
    return [segment + number for number in (bytes(4), b"\0\0\0\1", b"\xff" * 4)]


@pytest.mark.parametrize("segment", SEGMENTS, ids=bytes.hex)
def test_objects_of_one_segment_alone_are_found_by_an_index(tmp_path: Path, segment: bytes) -> None:
    engine = database(tmp_path)
    with transaction(engine) as tx:
        for number, (instance, findings, report) in enumerate(map(ids, SEGMENTS)):
            add_instance(tx, InstanceRow(f"i{number}", "s", "st", "p", instance, 1, "CT1", 0.0))
            add_result(tx, ResultRow(f"r{number}", f"i{number}", "p", "st", "m", findings, report, 0.0))
    asked: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
    with reading(engine) as tx:
        assert sorted(objects_beginning(tx, segment)) == ids(segment)
        statement, parameters = asked[-1]
        plan = [row[-1] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert (
        sum("USING COVERING INDEX" in step for step in plan) == 6
    )  # images, findings, reports, pictures, commitments, shadows
    assert not [step for step in plan if "SCAN" in step]
    engine.dispose()


def test_every_column_of_the_tables_that_holds_an_object_is_known_to_the_index() -> None:
    """What is not would be swept away, missing from backups, and never opened by a restore."""
    held = {
        column
        for table in schema.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary) and table is not schema.doomed_objects
    }
    assert held == set(_NAMES)
