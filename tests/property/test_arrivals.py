"""Any mixture of arrivals by any number of threads: first wins, each kind of row once, in one order, without gaps."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from support.arrivals import arrival, queued
from support.rooms import Rooms

from radnode.arrivals import Arrival, Arrivals
from radnode.errors import AuditError
from radnode.jobs.index import find_instance

KINDS = ["good", "good", "good", "unqueued", "broken row", "broken entry"]
PUSHES = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(KINDS)), min_size=1, max_size=6), min_size=1, max_size=8
)


def made(name: int, kind: str) -> Arrival:
    it = arrival(f"{name:032x}", enqueue=kind != "unqueued")
    if kind == "broken row":
        return replace(it, row=replace(it.row, series=None))
    if kind == "broken entry":
        return replace(it, record=replace(it.record, identity={"PatientID": object()}))
    return it


@settings(max_examples=40, deadline=None)
@given(PUSHES)
def test_any_mixture_keeps_each_instance_once_with_one_entry(pushes: list[list[tuple[int, str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rooms = Rooms(Path(folder))
        desk, won, wrong = Arrivals(rooms.stores), list[Arrival](), list[str]()

        def push(plan: list[tuple[int, str]]) -> None:
            for name, kind in plan:
                it = made(name, kind)
                try:
                    if desk.commit(it):
                        won.append(it)
                    if kind == "broken entry":
                        wrong.append(kind)
                except (IntegrityError, AuditError):
                    if not kind.startswith("broken"):
                        wrong.append(kind)

        threads = [threading.Thread(target=push, args=(plan,)) for plan in pushes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert wrong == []
        named = {f"{name:032x}" for plan in pushes for name, kind in plan if not kind.startswith("broken")}
        assert sorted(it.row.instance for it in won) == sorted(named)
        with rooms.engine.connect() as connection:
            for it in won:
                assert find_instance(connection, it.row.instance) == it.row
            numbers = connection.exec_driver_sql("SELECT seq FROM audit_entries ORDER BY seq").scalars().all()
            kept = connection.exec_driver_sql("SELECT instance FROM instances ORDER BY rowid").scalars().all()
        assert numbers == list(range(1, len(named) + 1))
        order = [entry["instance"] for entry in rooms.entries()]
        assert order == kept
        queue = {it.row.instance for it in won if it.jobs}
        assert queued(rooms) == [name for name in order if name in queue]
        rooms.close()
