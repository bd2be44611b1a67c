"""kill -9 of a process whose threads share commits: every arrival it acknowledged is there, with job and entry."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.rooms import Rooms

CHILD = """
import itertools, sys, threading
from pathlib import Path
from radnode.arrivals import Arrivals
from support.arrivals import arrival
from support.rooms import Rooms

start = int(sys.argv[2])
desk, numbers, tell = Arrivals(Rooms(Path(sys.argv[1])).stores), itertools.count(start), threading.Lock()

def push():
    while True:
        name = f"{next(numbers):032x}"
        assert desk.commit(arrival(name)) is True
        with tell:
            print(name, flush=True)

for _ in range(8):
    threading.Thread(target=push).start()
"""
TESTS = Path(__file__).parents[1]
KILLS = 5


@pytest.mark.parametrize("seed", [1, 2])
def test_every_acknowledged_arrival_survives_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (not a secret)
    rooms = Rooms(tmp_path)
    acknowledged: list[str] = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    for kill in range(KILLS):
        command = [sys.executable, "-c", CHILD, str(tmp_path), str(kill * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
            assert child.stdout is not None
            acknowledged.append(child.stdout.readline().strip())
            time.sleep(chance.uniform(0, 0.4))
            os.kill(child.pid, signal.SIGKILL)
            lines = child.stdout.read().split("\n")
        acknowledged += lines[:-1]  # the last may be cut short
    with rooms.engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT instance FROM instances").scalars().all()
        queued = connection.exec_driver_sql("SELECT subject FROM jobs").scalars().all()
        numbers = connection.exec_driver_sql("SELECT seq FROM audit_entries ORDER BY seq").scalars().all()
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    audited = [entry["instance"] for entry in rooms.entries()]
    rooms.close()
    assert len(acknowledged) > 10 * KILLS
    assert set(acknowledged) <= set(kept)
    assert sorted(kept) == sorted(queued) == sorted(audited)
    assert len(kept) <= len(acknowledged) + 9 * KILLS  # at most what was under way, and a line cut short
    assert numbers == list(range(1, len(kept) + 1))
