"""The key copy: the study keys outside of the database, for a restore, as one file that always holds the newest.

A backup of the data cannot hold study keys: it would open a study that was purged since. So they stand in one file
apart, which each backup, purge and rotation replaces. Its lines are JSON; every key is wrapped as in the database.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from radnode.durable import sync_folder
from radnode.errors import RadnodeError, StoreUnavailable
from radnode.storage.keys import key_copies, study_keys

FORMAT = "radnode study keys 1"
_MISSING = (
    "The key copy {path} is not there, and holds study keys as they were: bring it back and run `radnode purge`, or "
    "say that it was destroyed with `radnode keys forget`."
)
_COLUMNS = ("key_id", "study", "kek_id", "wrapped", "created")


def remember_copy(connection: Connection, path: Path) -> None:
    """Say that a key copy is about to be written: whatever becomes of that, purges look for it from now on."""
    row = {"path": str(path), "written": 0.0, "is_current": False}
    connection.execute(insert(key_copies).values(row).on_conflict_do_nothing())


def write_copy(connection: Connection, path: Path, now: float) -> int:
    """Write every study key there is now to `path`, in the place of what it held, and remember it; return how many.

    The old file is overwritten before it is replaced, as far as the file system has that in its hands. To be called in
    a write transaction: no study is purged meanwhile.

    Raises:
        StoreUnavailable: it cannot be written; what was there stays.
    """
    rows = connection.execute(select(study_keys).order_by(study_keys.c.key_id)).all()
    lines = [json.dumps({"format": FORMAT, "written": now, "keys": len(rows)})]
    lines += [json.dumps({name: _text(getattr(row, name)) for name in _COLUMNS}) for row in rows]
    fresh = _fresh(path)
    try:
        _write(fresh, ("\n".join(lines) + "\n").encode())
        if path.exists():
            _write(path, bytes(path.stat().st_size))
        fresh.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreUnavailable(f"The key copy {path} cannot be written ({error.strerror}).") from error
    values = {"path": str(path), "written": now, "is_current": True}
    connection.execute(insert(key_copies).values(values).on_conflict_do_update(index_elements=["path"], set_=values))
    return len(rows)


def read_copy(path: Path) -> tuple[float, list[dict[str, Any]]]:
    """Return when a key copy was written (epoch seconds), and its rows.

    Raises:
        RadnodeError: it cannot be read, is none, or is not whole.
    """
    try:
        whole = False
        head, *lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        rows = [{name: _value(name, line[name]) for name in _COLUMNS} for line in lines]
        whole = (head["format"], head["keys"]) == (FORMAT, len(rows))
    except OSError as error:
        raise RadnodeError(f"The key copy {path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, binascii.Error):
        rows = []
    if not whole:
        raise RadnodeError(f"{path} is no key copy of radnode, or it is not whole.")
    return float(head["written"]), rows


def take_in(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Put the rows of a key copy into a database that has none."""
    for row in rows:
        connection.execute(insert(study_keys).values(row))


def known_copies(connection: Connection) -> dict[Path, bool]:
    """Return where key copies stand, and whether each is current: without a key of a study that was purged."""
    query = select(key_copies.c.path, key_copies.c.is_current).order_by(key_copies.c.path)
    return {Path(path): is_current for path, is_current in connection.execute(query)}


def renew_copies(connection: Connection, now: float) -> list[RadnodeError]:
    """Write every known copy anew, so that it holds no purged key and none that a retired key wraps; as `write_copy`.

    Returns:
        What could not be done, for each copy; these stay as they are, and not current.
    """
    failed = list[RadnodeError]()
    for path in known_copies(connection):
        # A new file in the place of a disk that is not mounted would hide the copy that is on it.
        if not (path.exists() or _fresh(path).exists()):
            failed.append(RadnodeError(_MISSING.format(path=path)))
            continue
        try:
            write_copy(connection, path, now)
        except StoreUnavailable as error:
            failed.append(error)
    return failed


def forget_copy(connection: Connection, path: Path) -> bool:
    """Say that a key copy was destroyed; False where none is known there."""
    return bool(connection.execute(delete(key_copies).where(key_copies.c.path == str(path))).rowcount)


def _fresh(path: Path) -> Path:
    """Where a copy is written before it takes the place of the one before; a kill may leave it there."""
    return path.with_name(f"{path.name}.new")


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, len(content))
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _value(name: str, value: Any) -> Any:
    return base64.b64decode(value, validate=True) if name in ("key_id", "wrapped") else value
