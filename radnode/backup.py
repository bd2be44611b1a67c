"""Backup: a consistent, sealed copy of a node that goes on running; and its return, verified before it counts.

    DIR/audit      the files of the audit trail: checkpoints first, then the lines that they cover
    DIR/node.db    the database, behind the trail, without one study key
    DIR/objects    every object that the database names, in segments of the same names, with holes for the rest
    DIR/backup.json   written last: without it there is no backup

The order makes it consistent. Whatever the trail holds is in the database, which was copied later; whatever the
database names is in the object store, which was copied after it and only ever loses what was purged, and no purge runs
meanwhile. The study keys stand in the key copy (`radnode.storage.key_copy`), outside of every backup, so that what is
purged today opens in no backup of yesterday.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from radnode.audit.log import audit_entries
from radnode.durable import sync_folder
from radnode.errors import RadnodeError, StoreUnavailable
from radnode.jobs.index import every_object
from radnode.jobs.schema import commitments, jobs
from radnode.maintenance import DRAFT
from radnode.model import JobKind
from radnode.storage.segments import SEGMENT_ID, SegmentStore

FORMAT = "radnode backup 1"
MANIFEST = "backup.json"
_BESIDE = ("purged.note", "syslog.cursor")  # of a trail, beside its lines


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds: when it was made (epoch seconds), how many objects, and how many audit entries."""

    made: float
    objects: int
    entries: int
    format: str = FORMAT


def make_backup(data_dir: Path, folder: Path, now: float) -> Manifest:
    """Copy a node into a new folder, and return what it holds; the node may run, and no purge (`maintenance.alone`).

    Raises:
        RadnodeError: the folder exists and is not empty.
        StoreUnavailable: it cannot be written, or the node's files cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RadnodeError(f"{folder} is not empty; each backup gets a folder of its own.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        copy_trail(data_dir / "audit", folder / "audit")
        _copy_database(data_dir / "node.db", data_dir / "run" / DRAFT, folder / "node.db")
        manifest = _copy_objects(data_dir, folder, now)
        _sync(folder)
        (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="ascii")
        _sync(folder)
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        raise StoreUnavailable(f"The backup {folder} cannot be made ({_said(error)}).") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup says that it holds.

    Raises:
        RadnodeError: it is none, or was not finished.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        manifest = Manifest(**found)
    except (OSError, ValueError, TypeError) as error:
        raise RadnodeError(f"{folder} is no backup of radnode, or it was not finished.") from error
    if manifest.format != FORMAT:
        raise RadnodeError(f"{folder} is a backup of another version of radnode.")
    return manifest


def copy_back(folder: Path, data_dir: Path) -> None:
    """Copy the files of a backup into a data folder that has none of them.

    Raises:
        RadnodeError: there is a node already; nothing was changed.
        StoreUnavailable: the files cannot be copied; remove what is there before another try.
    """
    for name in ("node.db", "objects", "audit"):
        if (data_dir / name).exists():
            raise RadnodeError(f"{data_dir / name} exists already; a node is restored into a folder without one.")
    try:
        copy_trail(folder / "audit", data_dir / "audit")
        (data_dir / "objects").mkdir(mode=0o700)
        for path in sorted((folder / "objects").glob("*.seg")):
            copy_sparse(path, data_dir / "objects" / path.name)
        shutil.copyfile(folder / "node.db", data_dir / "node.db")
        _sync(data_dir)
    except OSError as error:
        raise StoreUnavailable(f"The backup cannot be copied to {data_dir} ({_said(error)}).") from error


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file and leave its holes holes."""
    with source.open("rb") as reader, target.open("xb") as writer:
        size, position = os.fstat(reader.fileno()).st_size, 0
        while position < size:
            try:
                position = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole to the end
                break
            end = os.lseek(reader.fileno(), position, os.SEEK_HOLE)
            while position < end:
                block = os.pread(reader.fileno(), min(1 << 20, end - position), position)
                if not block:
                    break
                position += os.pwrite(writer.fileno(), block, position)
        os.ftruncate(writer.fileno(), size)
        os.fsync(writer.fileno())


def copy_trail(source: Path, target: Path) -> None:
    """Copy the files of a trail: what is signed first, so that every line that it covers is there when it is read.

    Raises:
        OSError: a file cannot be read or written, or is gone.
        StoreUnavailable: entries past their retention went meanwhile, so that stub and lines do not fit.
    """
    target.mkdir(mode=0o700)
    (target / "checkpoints").mkdir(mode=0o700)
    stub = _stub(source)
    signed = sorted((source / "checkpoints").glob("*.notes"))
    lines = sorted(source.glob("trail-*.jsonl"))
    for path in [*signed, *(path for name in _BESIDE if (path := source / name).exists()), *lines]:
        copy = target / path.relative_to(source)
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
    if _stub(source) != stub:
        raise StoreUnavailable("Entries past their retention were purged meanwhile; make the backup again.")


def _stub(folder: Path) -> bytes:
    path = folder / "purged.note"
    return path.read_bytes() if path.exists() else b""


def _copy_database(source: Path, draft: Path, target: Path) -> None:
    """Copy the database as it is at one moment; the draft, beside the original, loses the study keys before it leaves.

    `VACUUM INTO` writes what is there and nothing that was deleted, so that no key is in any page of the target.
    """
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(draft)) as copy:
            original.backup(copy)
            copy.execute("PRAGMA secure_delete = ON")
            copy.execute("PRAGMA journal_mode = MEMORY")  # a journal on disk would hold the keys
            copy.execute("DELETE FROM study_keys")
            copy.execute("DELETE FROM doomed_objects")
            copy.commit()
            copy.execute("VACUUM INTO ?", (str(target),))
    finally:
        draft.unlink(missing_ok=True)
    target.chmod(0o600)


def _copy_objects(data_dir: Path, folder: Path, now: float) -> Manifest:
    """Copy what the copied database names; what a peer's storage commitment has done with since is forgotten there.

    Raises:
        StoreUnavailable: an object is missing that should be there.
    """
    store, found = SegmentStore(data_dir / "objects"), 0
    (folder / "objects").mkdir(mode=0o700)
    engine = create_engine(URL.create("sqlite", database=str(folder / "node.db")))
    try:
        with engine.begin() as tx:
            segments: dict[bytes, list[bytes]] = defaultdict(list)
            for object_id in every_object(tx):
                segments[object_id[:SEGMENT_ID]].append(object_id)
            for objects in segments.values():
                missing = store.copy(sorted(objects), folder / "objects")
                found += len(objects) - len(missing)
                for object_id in missing:
                    _forget_answered(tx, object_id)
            return Manifest(now, found, tx.scalar(select(func.max(audit_entries.c.seq))) or 0)
    finally:
        engine.dispose()


def _forget_answered(tx: Connection, object_id: bytes) -> None:
    """Forget a request for storage commitment that was answered while the backup was made."""
    name = tx.scalar(select(commitments.c.commitment).where(commitments.c.object_id == object_id))
    if name is None:
        raise StoreUnavailable("An object that the database names is not in the object store; see `radnode check`.")
    tx.execute(update(commitments).where(commitments.c.commitment == name).values(object_id=None))
    tx.execute(delete(jobs).where(jobs.c.kind == JobKind.COMMIT, jobs.c.subject == name))


def _sync(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(inner)


def _said(error: Exception) -> str:
    return (error.strerror or "input/output error") if isinstance(error, OSError) else type(error).__name__
