"""Anchors: copies of checkpoints elsewhere, out of reach of whoever could put back an earlier trail and its database.

An anchor needs no more than the newest checkpoint now and then: one that was away misses nothing that the next does not
cover. It holds notes in the same form as the trail's own folder of checkpoints, and a verifier reads both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.files import AppendFile
from radnode.errors import AuditError


class FolderAnchor:
    """A folder on another disk or machine. It must be there: one that is not mounted is not made in its place."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.name = str(folder)
        self._folder = folder
        self._signer = signer

    def put(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint there, durably. Raises AuditError when it cannot be."""
        if not self._folder.is_dir():
            raise AuditError(f"The anchor {self._folder} is not there; mount it, or make the folder.")
        try:
            file = AppendFile(self._folder / f"{datetime.now(UTC).date().isoformat()}.notes")
            try:
                file.append(f"{self._signer.sign(checkpoint.text())}\n".encode())
            finally:
                file.close()
        except OSError as error:
            raise AuditError(f"The anchor {self._folder} cannot be written: {error.strerror}.") from None
