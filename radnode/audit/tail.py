"""Following the trail: the entries behind a number, in order, as the sequencer appends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from radnode.audit.files import segments
from radnode.errors import AuditError


class Tail:
    """Reads on behind entry `seq`, which is the last one that was done with."""

    def __init__(self, folder: Path, seq: int) -> None:
        self.seq = seq
        self._folder = folder
        self._place: tuple[Path, int] | None = None  # the segment of the next entry, and its offset in bytes
        self._ahead: tuple[Path, int] | None = None  # the same behind what was read last

    def read(self, limit: int) -> list[dict[str, Any]]:
        """Return the next entries, at most `limit`, the same ones until they are `done`.

        Raises AuditError when the trail is broken or cannot be read.
        """
        try:
            return self._read(limit)
        except OSError as error:
            raise AuditError(f"The trail cannot be read: {error.strerror}.") from None

    def done(self, entries: list[dict[str, Any]]) -> None:
        """Go on behind what `read` returned."""
        if entries:
            self.seq, self._place = int(entries[-1]["seq"]), self._ahead

    def _read(self, limit: int) -> list[dict[str, Any]]:
        self._place = self._place or self._find()
        if self._place is None:
            return []
        path, offset = self._place
        entries: list[dict[str, Any]] = []
        with path.open("rb") as stream:
            stream.seek(offset)
            while len(entries) < limit:
                line = stream.readline()
                if not line.endswith(b"\n"):
                    break
                entries.append(_parse(line, self.seq + 1 + len(entries)))
                offset += len(line)
        self._ahead = path, offset
        if not entries:  # a segment that begins with the next entry says that this one has ended
            following = [part for first, part in segments(self._folder) if first == self.seq + 1 and part != path]
            self._place = (following[0], 0) if following else self._place
        return entries

    def _find(self) -> tuple[Path, int] | None:
        """Return where the next entry begins; what was purged is passed over."""
        parts = segments(self._folder)
        if not parts:
            return None
        self.seq = max(self.seq, parts[0][0] - 1)
        first, path = [part for part in parts if part[0] <= self.seq + 1][-1]
        offset = 0
        with path.open("rb") as stream:
            for _ in range(self.seq + 1 - first):
                offset += len(stream.readline())
        return path, offset


def _parse(line: bytes, seq: int) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        entry = {}
    if entry.get("seq") != seq:
        raise AuditError(f"The audit trail is broken at entry {seq}; run radnode audit verify.")
    return entry
