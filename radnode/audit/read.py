"""Reading the trail: filtered entries in either order, one entry by number, and who accessed a patient's data.

Reading does not verify (that is `verify`), and every use must itself be audited as TRAIL_READ by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from radnode.audit.events import Event
from radnode.audit.files import segments
from radnode.errors import AuditError, NotFoundError

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted; what is None does not restrict.

    `patient`, `study` and `instance` are pseudonyms. `since` is included, `until` is not; both know their zone.
    """

    patient: str | None = None
    study: str | None = None
    instance: str | None = None
    event: Event | None = None
    since: datetime | None = None
    until: datetime | None = None

    def _needles(self) -> list[bytes]:
        """What the line of a wanted entry must contain, a cheap test before it is parsed."""
        event = self.event.label if self.event else None
        return [text.encode() for text in (self.patient, self.study, self.instance, event) if text]

    def _admits(self, entry: Entry) -> bool:
        """Whether one entry is wanted."""
        return (
            all(
                wanted is None or entry[name] == wanted
                for name, wanted in (
                    ("patient", self.patient),
                    ("study", self.study),
                    ("instance", self.instance),
                    ("event", self.event and self.event.label),
                )
            )
            and (self.since is None or entry["timestamp"] >= _stamp(self.since))
            and (self.until is None or entry["timestamp"] < _stamp(self.until))
        )

    def select(self, lines: Iterator[bytes]) -> Iterator[Entry]:
        """Yield the wanted entries among whole lines of the trail. Raises AuditError at a line that is none."""
        needles = self._needles()
        for line in lines:
            if all(needle in line for needle in needles):
                entry = _parse(line)
                if self._admits(entry):
                    yield entry


def entries(folder: Path, wanted: Filter | None = None, *, newest_first: bool = False) -> Iterator[Entry]:
    """Yield the wanted entries of the trail in `folder`, oldest first unless told otherwise.

    A last line that is still being written is left out. Raises AuditError at a damaged line.
    """
    return (wanted or Filter()).select(_lines(folder, newest_first))


def entry(folder: Path, seq: int) -> Entry:
    """Return entry number `seq`. Raises NotFoundError when the trail has none, AuditError when it is damaged."""
    holding = [(first, path) for first, path in segments(folder) if first <= seq]
    if holding:
        first, path = holding[-1]
        lines = _whole_lines(path)
        if seq - first < len(lines):
            found = _parse(lines[seq - first])
            if found["seq"] == seq:
                return found
            raise AuditError(f"The audit trail is broken in {path.name}; run radnode audit verify.")
    raise NotFoundError(f"The audit trail has no entry {seq}.")


def access_logs(
    folder: Path, patient: str, since: datetime | None = None, until: datetime | None = None
) -> list[Entry]:
    """Return, oldest first, everything that was done with the data of the patient with this pseudonym.

    45 CFR 164.528 (accounting of disclosures) and 164.404 (breach notice) ask for it.
    """
    return list(entries(folder, Filter(patient=patient, since=since, until=until)))


def _lines(folder: Path, newest_first: bool) -> Iterator[bytes]:
    """Yield whole lines, one segment in memory at a time."""
    parts = segments(folder)
    for _, path in reversed(parts) if newest_first else parts:
        lines = _whole_lines(path)
        yield from reversed(lines) if newest_first else lines


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of one segment without newlines, less an unfinished last one."""
    return path.read_bytes().split(b"\n")[:-1]


def _parse(line: bytes) -> Entry:
    """Parse one line. Raises AuditError when it is no entry."""
    try:
        parsed: Entry = json.loads(line)
    except ValueError:
        raise AuditError("The audit trail holds a line that is no entry; run radnode audit verify.") from None
    return parsed


def _stamp(moment: datetime) -> str:
    """Return a moment as the trail writes it, so that texts compare as times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
