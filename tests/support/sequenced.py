"""A database whose audit rows a sequencer copies into a trail, and that trail as a bystander reads it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, create_engine

from radnode.audit import events
from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.verify import Verification, verify

ORIGIN = "radnode.example/audit"
SIGNER = Signer.generate(ORIGIN)
LOG = AuditLog(bytes(32))


class Node:
    """A database and an audit folder."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "radnode.db"
        self.trail = folder / "audit"
        self.key = folder / "audit.pub"
        self.key.write_text(f"{SIGNER.verifier}\n")
        self.engine: Engine = create_engine(f"sqlite:///{self.database}")
        metadata.create_all(self.engine)

    def add(self, count: int) -> None:
        with self.engine.begin() as connection:
            for number in range(count):
                record = AuditRecord(events.IMAGE_RECEIVED, Actor(ae="CT1"), detail={"count": number})
                LOG.record(connection, record)

    def sequencer(self, **options: int) -> Sequencer:
        return Sequencer(self.engine, self.trail, SIGNER, ORIGIN, **options)

    def lines(self) -> list[bytes]:
        return b"".join(path.read_bytes() for path in sorted(self.trail.glob("*.jsonl"))).split(b"\n")[:-1]

    def notes(self) -> list[Checkpoint]:
        blocks = b"".join(path.read_bytes() for path in sorted(self.trail.glob("checkpoints/*"))).decode().split("\n\n")
        pairs = zip(blocks[0:-1:2], blocks[1:-1:2], strict=True)
        return [Checkpoint.from_text(SIGNER.verifier.open(f"{body}\n\n{end}\n")) for body, end in pairs]

    def verified(self) -> Verification:
        return verify(self.trail, self.key, self.database)
