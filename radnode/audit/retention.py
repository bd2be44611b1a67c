"""Purging the trail itself: whole segments past their retention go, and a signed stub says from where it goes on.

The stub (`purged.note`) is a checkpoint over everything that was purged, now or before, with what a verifier needs to
go on behind it: the leaf hash of the last purged line, and the roots of the complete subtrees. Who removes segments has
to forge it. The order is stub, files, rows; what a crash leaves of files and rows, `clear` removes at the next start.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from sqlalchemy import Engine, delete
from sqlalchemy.exc import SQLAlchemyError

from radnode.audit.checkpoint import Checkpoint, Signer, Verifier
from radnode.audit.files import FILE_MODE, segments
from radnode.audit.log import audit_entries
from radnode.audit.tree import Tree, leaf_hash
from radnode.durable import sync_folder
from radnode.errors import AuditError

STUB = "purged.note"
FIRST_PREV = "0" * 64
ROWS_AT_ONCE = 5000  # so that nobody waits long for the database
_TIMESTAMP = re.compile(rb'"timestamp":"([^"]{27})"')
_SIZE = re.compile(r"\n(\d{1,20})\n")


@dataclass(frozen=True, slots=True)
class Stub:
    """What stands for the first `size` entries: the subtree roots `peaks` (32 bytes each, largest first), and `last`,
    the leaf hash of entry `size` in hex, which is the `prev` of the next one.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()
    last: str = FIRST_PREV

    def tree(self) -> Tree:
        """Return the tree that goes on here."""
        return Tree(self.size, self.peaks)


def read_stub(folder: Path, verifier: Verifier) -> Stub:
    """Return the stub of a trail; an empty one when nothing was ever purged. Raises AuditError when it is not ours."""
    try:
        note = (folder / STUB).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Stub()
    except (OSError, UnicodeDecodeError):
        raise AuditError(f"The stub of the audit trail, {STUB}, cannot be read.") from None
    checkpoint = Checkpoint.from_text(verifier.open(note))
    lines = [line.partition(" ") for line in checkpoint.extension]
    try:
        peaks = tuple(bytes.fromhex(value) for name, _, value in lines if name == "peak")
        last = next(value for name, _, value in lines if name == "last")
    except (ValueError, StopIteration):
        raise AuditError(f"The stub of the audit trail, {STUB}, is damaged.") from None
    stub = Stub(checkpoint.size, peaks, last)
    if stub.tree().root() != checkpoint.root:
        raise AuditError(f"The stub of the audit trail, {STUB}, is damaged.")
    return stub


def due(folder: Path, verifier: Verifier, limit: datetime, keep_from: int | None = None) -> Stub | None:
    """Return the stub of what may go: leading segments of which every entry is older than `limit`; None: none may.

    The newest segment stays, and so does every one that holds `keep_from` or what comes after it. Raises AuditError at
    a trail that is broken.
    """
    stamp = limit.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
    stub = read_stub(folder, verifier)
    tree, last, found = stub.tree(), stub.last, stub
    parts = [part for part in segments(folder) if part[0] > stub.size]
    for (first, path), (following, _) in pairwise(parts):
        if keep_from is not None and following > keep_from:
            break
        lines = path.read_bytes().split(b"\n")[:-1]
        if first != tree.size + 1 or following != first + len(lines):
            raise AuditError(f"The audit trail is broken at {path.name}; run radnode audit verify.")
        stamps = [match[1] if (match := _TIMESTAMP.search(line)) else stamp for line in lines]
        if not all(moment < stamp for moment in stamps):
            break
        for line in lines:
            leaf = leaf_hash(line)
            tree.append(leaf)
            last = leaf.hex()
        found = Stub(tree.size, tree.peaks, last)
    return None if found.size == stub.size else found


def purge(engine: Engine, folder: Path, signer: Signer, stub: Stub) -> None:
    """Sign the stub and remove what it stands for. Only who holds the trail may; the entry that tells of it is written.

    Raises AuditError when the stub cannot be written; nothing was removed then.
    """
    moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    extension = (f"time {moment}", f"last {stub.last}", *(f"peak {peak.hex()}" for peak in stub.peaks))
    note = signer.sign(Checkpoint(signer.verifier.name, stub.size, stub.tree().root(), extension).text())
    temporary = folder / f"{STUB}.new"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(note.encode())
            file.flush()
            os.fsync(handle)
        temporary.replace(folder / STUB)
        sync_folder(folder)
    except OSError as error:
        raise AuditError(f"The stub of the audit trail could not be written: {error.strerror}.") from None
    clear(engine, folder, stub)


def clear(engine: Engine, folder: Path, stub: Stub) -> None:
    """Remove the segments, drawers of checkpoints and rows that a stub stands for. Raises AuditError."""
    if not stub.size:
        return
    try:
        for first, path in segments(folder):
            if first <= stub.size:
                path.unlink()
        for path in folder.glob("checkpoints/*.notes"):
            sizes = [int(size) for size in _SIZE.findall(path.read_text(encoding="utf-8"))]
            if sizes and max(sizes) < stub.size:
                path.unlink()
        sync_folder(folder)
    except (OSError, UnicodeDecodeError):
        raise AuditError("What was purged of the audit trail cannot be removed; look at its folder.") from None
    column = audit_entries.c.seq
    try:
        while True:
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                lowest = connection.execute(audit_entries.select().order_by(column).limit(1)).scalar()
                if lowest is None or lowest > stub.size:
                    return
                connection.execute(delete(audit_entries).where(column <= min(stub.size, lowest + ROWS_AT_ONCE)))
    except SQLAlchemyError:
        raise AuditError("The purged audit rows cannot be removed; look at the database.") from None
