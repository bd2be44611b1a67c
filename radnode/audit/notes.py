"""The checkpoints on disk: `checkpoints/YYYY-MM-DD.notes`, signed notes one after another, each followed by an
empty line. The date is only a drawer; the newest checkpoint is the one that covers most entries.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from radnode.audit.checkpoint import Checkpoint, Signer, Verifier
from radnode.audit.files import AppendFile, private_folder
from radnode.errors import AuditError

_NOTE_END = re.compile("\n\n— [^\n]+\n(\n)".encode())
_TAIL = 8192  # bytes, more than two notes


class Notes:
    """Appends checkpoints to the folder `checkpoints`, and finds the newest one there."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        private_folder(folder)
        self._folder = folder
        self._signer = signer

    def append(self, size: int, root: bytes, prev: str) -> Checkpoint:
        """Sign and store, durably, that `size` entries have the Merkle root `root`. Raises AuditError."""
        now = datetime.now(UTC)
        moment = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        checkpoint = Checkpoint(self._signer.verifier.name, size, root, (f"time {moment}", f"prev {prev}"))
        file = AppendFile(self._folder / f"{now.date().isoformat()}.notes")
        try:
            file.append(f"{self._signer.sign(checkpoint.text())}\n".encode())
        finally:
            file.close()
        return checkpoint

    def newest(self) -> Checkpoint | None:
        """Return the checkpoint that covers most entries; a note that a crash left unfinished is removed.

        Raises AuditError when the last note of a file is not a checkpoint of this signer.
        """
        last = [_last(path, self._signer.verifier) for path in sorted(self._folder.glob("*.notes"))]
        return max((note for note in last if note), key=lambda note: note.size, default=None)


def _last(path: Path, verifier: Verifier) -> Checkpoint | None:
    """Return the last checkpoint of one file (sizes never fall within a file), None for an empty one."""
    with path.open("rb") as stream:
        length = stream.seek(0, 2)
        start = stream.seek(max(0, length - _TAIL))
        tail = stream.read()
    ends = [match.start(1) for match in _NOTE_END.finditer(tail)]
    whole = start + ends[-1] + 1 if ends else 0
    if start and len(ends) < 2:
        raise AuditError(f"The checkpoints in {path.name} are damaged; run radnode audit verify.")
    if whole < length:
        file = AppendFile(path)
        try:
            file.cut(whole)
        finally:
            file.close()
    if not ends:
        return None
    begin = ends[-2] + 1 if len(ends) > 1 else 0
    try:
        return Checkpoint.from_text(verifier.open(tail[begin : ends[-1]].decode()))
    except UnicodeDecodeError:
        raise AuditError(f"The checkpoints in {path.name} are damaged; run radnode audit verify.") from None
