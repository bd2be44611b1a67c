"""The one process that turns audit rows into the trail: lines, tree, signed checkpoints.

    rows of audit_entries -> trail-*.jsonl (fsync) -> Merkle tree -> checkpoints/*.notes (fsync)

A line depends on nothing but its row and the line before it, so a crash at any point is mended by reading the
files again: an unfinished last line is cut off and written anew from its row. What is finished is never
rewritten; files that disagree with the newest checkpoint or with the database stop the sequencer.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sqlalchemy import Engine, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.files import FILE_MODE, AppendFile, private_folder, segment_name, segments
from radnode.audit.log import audit_entries, line_of
from radnode.audit.notes import Notes
from radnode.audit.retention import FIRST_PREV, clear, read_stub
from radnode.audit.tree import Tree, leaf_hash
from radnode.errors import AuditError
from radnode.failpoints import reach

SEGMENT_BYTES = 64 * 1024 * 1024
BATCH_ROWS = 1000
IDLE_SECONDS = 0.05  # between two looks for new rows

# Built once: an idle sequencer, too, asks twenty times a second
_NEXT = (
    select(audit_entries.c.seq, audit_entries.c.entry)
    .where(audit_entries.c.seq > bindparam("size"))
    .order_by(audit_entries.c.seq)
    .limit(BATCH_ROWS)
)
_DAY = re.compile(r'"timestamp":"(\d{4}-\d\d-\d\d)T')
_ADVICE = "run radnode audit verify"


class Sequencer:
    """Appends committed audit rows to the trail in `folder`; only one holds the lock at a time.

    `signer` signs a checkpoint every `checkpoint_seconds` in which entries came; its name must be `origin`.
    Every method raises AuditError when the trail cannot be written or does not fit what was signed.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        signer: Signer,
        origin: str,
        checkpoint_seconds: float = 1.0,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        if origin != signer.verifier.name:
            raise AuditError("The origin of the audit trail must be the name of its signing key.")
        self._engine = engine
        self._folder = folder
        self._signer = signer
        self._checkpoint_seconds = checkpoint_seconds
        self._segment_bytes = segment_bytes
        self._lock: int | None = None
        self._segment: AppendFile | None = None
        self._notes: Notes
        self._tree = Tree()
        self._prev = self._before = FIRST_PREV
        self._signed = 0
        self.newest: Checkpoint | None = None  # signed last
        self._day = ""  # of the last entry, UTC

    @property
    def size(self) -> int:
        """How many entries the trail holds."""
        return self._tree.size

    def acquire(self, blocking: bool = True) -> bool:
        """Become the sequencer and take up the trail where it ends; False when another one holds it."""
        try:
            private_folder(self._folder)
            lock = os.open(self._folder / "sequencer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            os.fchmod(lock, FILE_MODE)
        except OSError as error:
            raise AuditError(f"The audit folder cannot be used: {error.strerror}.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        try:
            self._recover()
        except OSError as error:
            self.release()
            raise AuditError(f"The audit trail cannot be read: {error.strerror}.") from None
        except AuditError:
            self.release()
            raise
        return True

    def step(self) -> int:
        """Append the next rows (at most BATCH_ROWS), durably, and return how many there were."""
        lines: list[bytes] = []
        leaves: list[bytes] = []
        prev = before = self._prev
        rows = self._pending()
        for seq, entry in rows:
            if seq != self._tree.size + len(lines) + 1:
                raise AuditError(f"Audit row {self._tree.size + len(lines) + 1} is missing; {_ADVICE}.")
            before = prev
            line = line_of(seq, entry, prev)
            leaves.append(leaf_hash(line))
            lines.append(line + b"\n")
            prev = leaves[-1].hex()
        if lines:
            self._open_segment(_day(rows[0][1])).append(b"".join(lines))
            reach("trail-appended")
            for leaf in leaves:
                self._tree.append(leaf)
            self._prev, self._before = prev, before
            self._day = max(self._day, _day(rows[-1][1]))
        return len(lines)

    def checkpoint(self) -> Checkpoint | None:
        """Sign what is in the trail, durably; None when nothing came since the last checkpoint."""
        if self._tree.size == self._signed:
            return None
        try:
            checkpoint = self._notes.append(self._tree.size, self._tree.root(), self._before)
        except OSError as error:
            raise AuditError(f"The checkpoint could not be written: {error.strerror}.") from None
        self._signed, self.newest = checkpoint.size, checkpoint
        reach("trail-signed")
        return checkpoint

    def run(self, stop: threading.Event, look: Callable[[], None] = lambda: None) -> None:
        """Append and sign until `stop` is set; `look` is called as often as it is time to sign.

        Nobody rings: each batch costs the disk the same, which intake needs, so rows gather for `IDLE_SECONDS` and
        share the next one.
        """
        pause = min(IDLE_SECONDS, self._checkpoint_seconds)
        due = time.monotonic() + self._checkpoint_seconds
        while not stop.is_set():
            copied = self.step()
            if time.monotonic() >= due or not self._signed:
                self.checkpoint()
                due = time.monotonic() + self._checkpoint_seconds
                look()
            if copied < BATCH_ROWS:
                stop.wait(pause)

    def close(self) -> None:
        """Append what is left, sign a last checkpoint, and give up the lock."""
        try:
            self.finish()
        finally:
            self.release()

    def finish(self) -> None:
        """Append what is left, and sign a last checkpoint."""
        while self.step():
            pass
        self.checkpoint()

    def release(self) -> None:
        """Give up the lock as a crash would: without appending or signing anything."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Sequencer:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.release()

    def _pending(self) -> list[tuple[int, str]]:
        """Return the next committed rows that are not in the trail."""
        if self._lock is None:
            raise AuditError("The sequencer does not hold the audit trail; call acquire first.")
        try:
            with self._engine.connect() as connection:
                return [(seq, entry) for seq, entry in connection.execute(_NEXT, {"size": self._tree.size})]
        except SQLAlchemyError:
            raise AuditError("The audit rows cannot be read; look at the database.") from None

    def _open_segment(self, day: str) -> AppendFile:
        """Return the segment to append to, a new one when the last is full or of an earlier day."""
        is_over = self._day and day > self._day
        if self._segment is None or self._segment.length >= self._segment_bytes or (is_over and self._segment.length):
            if self._segment is not None:
                self._segment.close()
                self._segment = None
            try:
                self._segment = AppendFile(self._folder / segment_name(self._tree.size + 1))
            except OSError as error:
                raise AuditError(f"The audit trail could not be written: {error.strerror}.") from None
        return self._segment

    def _recover(self) -> None:
        """Read the whole trail, check it against the newest checkpoint and the database, drop a torn last line."""
        stub = read_stub(self._folder, self._signer.verifier)
        clear(self._engine, self._folder, stub)
        self._tree, self._prev, self._before = stub.tree(), stub.last, FIRST_PREV
        self._notes = Notes(self._folder / "checkpoints", self._signer)
        newest = self.newest = self._notes.newest()
        self._signed = newest.size if newest else 0
        parts = segments(self._folder)
        whole = last = b""
        for number, (first, path) in enumerate(parts, start=1):
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if first != self._tree.size + 1 or (number < len(parts) and whole != data):
                raise AuditError(f"The audit trail is broken at {path.name}; {_ADVICE}.")
            for line in whole.split(b"\n")[:-1]:
                self._take(line, path, newest)
                last = line
        if newest and self._tree.size < newest.size:
            raise AuditError(f"The audit trail ends before what its newest checkpoint signed; {_ADVICE}.")
        self._compare(last)
        self._day = _day(last.decode("ascii", "replace"))
        if parts:
            self._segment = AppendFile(parts[-1][1])
            if self._segment.length > len(whole):
                self._segment.cut(len(whole))

    def _take(self, line: bytes, path: Path, newest: Checkpoint | None) -> None:
        """Add one line that is already in the trail."""
        seq = self._tree.size + 1
        if not line.startswith(f'{{"seq":{seq},'.encode()) or not line.endswith(f',"prev":"{self._prev}"}}'.encode()):
            raise AuditError(f"The audit trail is broken at entry {seq} in {path.name}; {_ADVICE}.")
        leaf = leaf_hash(line)
        self._tree.append(leaf)
        self._prev, self._before = leaf.hex(), self._prev
        if newest and newest.size == seq and newest.root != self._tree.root():
            raise AuditError(f"The audit trail differs from what its newest checkpoint signed; {_ADVICE}.")

    def _compare(self, last: bytes) -> None:
        """Check that the database still holds the last entry of the trail, so that numbers go on after it."""
        column = audit_entries.c.entry
        try:
            with self._engine.connect() as connection:
                entry = connection.scalar(select(column).where(audit_entries.c.seq == self._tree.size))
                highest = connection.scalar(select(func.max(audit_entries.c.seq))) or 0
        except SQLAlchemyError:
            raise AuditError("The audit rows cannot be read; look at the database.") from None
        if highest < self._tree.size:
            raise AuditError(f"The database holds fewer audit rows than the trail; {_ADVICE}.")
        if self._tree.size and line_of(self._tree.size, entry or "", self._before) != last:
            raise AuditError(f"Audit row {self._tree.size} differs from the trail; {_ADVICE}.")


def _day(entry: str) -> str:
    """Return the UTC day of an entry, YYYY-MM-DD; the empty text where it has none."""
    found = _DAY.search(entry)
    return found[1] if found else ""
