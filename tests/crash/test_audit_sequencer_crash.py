"""kill -9 of the sequencer at random moments, while rows are being inserted: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event

from radnode.audit import events
from radnode.audit.checkpoint import Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.verify import Verification, verify

CHILD = """
import sys, threading
from pathlib import Path
from sqlalchemy import create_engine
from radnode.audit.checkpoint import Signer
from radnode.audit.sequencer import Sequencer

database, folder, key = sys.argv[1:]
signer = Signer.from_string(Path(key).read_text())
engine = create_engine(f"sqlite:///{database}")
sequencer = Sequencer(engine, Path(folder), signer, signer.verifier.name, 0.01, segment_bytes=20_000)
sequencer.acquire()
print("ready", flush=True)
sequencer.run(threading.Event())
"""
KILLS = 6


def durable(engine: Engine) -> None:
    """Set the engine up as the node does: write-ahead log, every commit synced."""

    @event.listens_for(engine, "connect")
    def configure(connection: object, _: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")


def insert_until(stop: threading.Event, engine: Engine) -> None:
    """Insert rows one by one and in bursts; every fifth transaction is rolled back."""
    log = AuditLog(bytes(32))
    turn = 0
    while not stop.is_set():
        turn += 1
        with engine.connect() as connection:
            for _ in range(random.choice([1, 1, 20])):  # noqa: S311 - not a secret
                log.record(connection, AuditRecord(events.IMAGE_RECEIVED, Actor(ae="CT1"), detail={"count": turn}))
            if turn % 5:
                connection.commit()
        time.sleep(0.002)


@pytest.mark.parametrize("seed", [1, 2])
def test_trail_survives_kill_of_the_sequencer_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not a secret
    signer = Signer.generate("radnode.example/audit")
    database, folder, key = tmp_path / "radnode.db", tmp_path / "audit", tmp_path / "audit.key"
    key.write_text(signer.to_string())
    (tmp_path / "audit.pub").write_text(str(signer.verifier))
    engine = create_engine(f"sqlite:///{database}")
    durable(engine)
    metadata.create_all(engine)
    stop = threading.Event()
    writer = threading.Thread(target=insert_until, args=(stop, engine))
    writer.start()
    try:
        for _ in range(KILLS):
            command = [sys.executable, "-c", CHILD, str(database), str(folder), str(key)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == b"ready\n"
                time.sleep(chance.uniform(0, 0.25))
                os.kill(child.pid, signal.SIGKILL)
            sound = verify(folder, tmp_path / "audit.pub", database)
            assert sound.ok or "cut off" in sound.problem or "No checkpoint" in sound.problem
    finally:
        stop.set()
        writer.join()
    with Sequencer(engine, folder, signer, signer.verifier.name):
        pass
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT count(*), max(seq) FROM audit_entries").one()
    engine.dispose()
    lines = b"".join(path.read_bytes() for path in sorted(folder.glob("*.jsonl"))).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, rows[0] + 1))
    assert rows[0] == rows[1] > 100
    result = verify(folder, tmp_path / "audit.pub", database)
    assert result == Verification(True, rows[0], result.checkpoints, rows[0])
    assert result.checkpoints > 1
    assert len(list(folder.glob("*.jsonl"))) > 1


def test_a_running_trail_always_verifies(tmp_path: Path) -> None:
    signer = Signer.generate("radnode.example/audit")
    database, folder, key = tmp_path / "radnode.db", tmp_path / "audit", tmp_path / "audit.key"
    key.write_text(signer.to_string())
    (tmp_path / "audit.pub").write_text(str(signer.verifier))
    engine = create_engine(f"sqlite:///{database}")
    durable(engine)
    metadata.create_all(engine)
    stop = threading.Event()
    writer = threading.Thread(target=insert_until, args=(stop, engine))
    writer.start()
    results = []
    try:
        command = [sys.executable, "-c", CHILD, str(database), str(folder), str(key)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            while not list(folder.glob("checkpoints/*.notes")):
                time.sleep(0.01)
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                results.append(verify(folder, tmp_path / "audit.pub", database))
            child.kill()
    finally:
        stop.set()
        writer.join()
        engine.dispose()
    assert [result.problem for result in results if not result.ok] == []
    assert results[-1].entries > results[0].entries
