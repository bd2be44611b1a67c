"""`scripts/bench audit`: record, sequence, restart and verify the trail, in entries per second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import create_engine, insert, select

from radnode.audit import events
from radnode.audit.checkpoint import Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, audit_entries, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.verify import verify

RECORDED = 20_000  # written one by one; the rest are copies of them
CHECKPOINT_EVERY = 1000


def timed(name: str, count: int, act: Callable[[], object]) -> object:
    begun = time.perf_counter()
    result = act()
    seconds = time.perf_counter() - begun
    print(f"{name:<42} {count / seconds:>12,.0f} entries/s   {seconds:8.2f} s")
    return result


def measure(count: int) -> None:
    """Measure with so many entries and print each step; needs about 1.3 kB of disk per entry, twice."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        signer = Signer.generate("radnode.example/audit")
        (home / "audit.pub").write_text(str(signer.verifier))
        engine = create_engine(f"sqlite:///{home / 'radnode.db'}")
        metadata.create_all(engine)
        log = AuditLog(bytes(32))
        actor = Actor(ae="MODALITY1", certificate="ab" * 32, address="10.1.2.3")
        identity = {"PatientID": "4711", "StudyInstanceUID": "1.2.840.113619.2.55.3.1", "SOPInstanceUID": "1.2.3.4"}
        recorded = min(count, RECORDED)

        def record() -> None:
            with engine.begin() as connection:
                for number in range(recorded):
                    log.record(
                        connection,
                        AuditRecord(
                            events.IMAGE_RECEIVED,
                            actor,
                            patient="p" * 32,
                            study="s" * 32,
                            instance=f"{number:032x}",
                            detail={"bytes": 8_388_608, "status": "0000"},
                            identity=identity,
                        ),
                    )

        timed("record (one transaction)", recorded, record)
        with engine.begin() as connection:
            row = connection.scalar(select(audit_entries.c.entry).limit(1))
            for _ in range(recorded, count, RECORDED):
                connection.execute(insert(audit_entries), [{"entry": row}] * RECORDED)
        count = -(-count // RECORDED) * RECORDED if count > RECORDED else count
        print(f"{len(row) + 90} bytes per entry, {count:,} entries, a checkpoint every {CHECKPOINT_EVERY:,}")

        def sequence() -> None:
            with Sequencer(engine, home / "audit", signer, signer.verifier.name) as sequencer:
                while sequencer.step():
                    sequencer.checkpoint()

        def restart() -> None:
            sequencer = Sequencer(engine, home / "audit", signer, signer.verifier.name)
            sequencer.acquire()
            sequencer.release()

        timed("sequence (fsync + checkpoint per batch)", count, sequence)
        timed("restart (read and check the whole trail)", count, restart)
        print(timed("verify (files and key)", count, lambda: verify(home / "audit", home / "audit.pub")))
        print(
            timed(
                "verify (and the database)",
                count,
                lambda: verify(home / "audit", home / "audit.pub", home / "radnode.db"),
            )
        )
