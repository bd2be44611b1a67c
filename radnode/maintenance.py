"""One purge, backup or restore at a time. The lock is the kernel's and dies with who holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radnode.errors import RadnodeError

DRAFT = "backup.db"  # what a backup makes in the run folder, and a killed one leaves there, with study keys in it


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep other purges and backups of a node out.

    Raises:
        RadnodeError: one is running.
    """
    folder = data_dir / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / "maintenance.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RadnodeError("A purge or a backup of this node is running; wait for its end.") from None
        (folder / DRAFT).unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)
