"""A finished trail, and the table of what may be done to its files, each with the first entry that is then bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from radnode.audit.checkpoint import Signer
from radnode.audit.verify import Verification, verify

SIGNER = Signer.generate("radnode.example/audit")
CHECKPOINTS = (10, 20, 24)
SIZE = 24  # three segments: entries 1-8, 9-16, 17-24


@dataclass
class Trail:
    """A trail of SIZE entries with signed checkpoints at CHECKPOINTS."""

    folder: Path
    key: Path
    database: Path

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def notes(self) -> Path:
        return next(self.folder.glob("checkpoints/*"))

    def lines(self) -> list[bytes]:
        return [line for path in self.segments() for line in path.read_bytes().splitlines(keepends=True)]

    def write(self, lines: list[bytes]) -> None:
        """Put `lines` into the segments, as many into each as there were; the rest into the last."""
        paths = self.segments()
        for path in paths:
            count = len(path.read_bytes().splitlines())
            taken = lines if path == paths[-1] else lines[:count]
            path.write_bytes(b"".join(taken))
            lines = lines[len(taken) :]

    def check(self, *, with_database: bool = False) -> Verification:
        return verify(self.folder, self.key, self.database if with_database else None)


def rechained(lines: list[bytes], start: int) -> list[bytes]:
    """Renumber all lines and compute every `prev` from entry `start` on anew, as a careful forger would."""
    result = list(lines[: start - 1])
    prev = sha256(b"\0" + result[-1][:-1]).hexdigest() if result else "0" * 64
    for seq, line in enumerate(lines[start - 1 :], start=start):
        body = line[line.index(b",") : -68]
        result.append(b'{"seq":%d%s"%s"}\n' % (seq, body, prev.encode()))
        prev = sha256(b"\0" + result[-1][:-1]).hexdigest()
    return result


def changed(line: bytes) -> bytes:
    """The line with another patient."""
    entry = json.loads(line)
    entry["patient"] = "f" * 32
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def edit(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        lines = trail.lines()
        lines[seq - 1] = changed(lines[seq - 1])
        trail.write(lines)

    return tamper


def edit_both(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        edit(seq)(trail)
        edit(seq + 1)(trail)

    return tamper


def byte(seq: int, place: int, value: bytes | None = None) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        lines = trail.lines()
        line = bytearray(lines[seq - 1])
        line[place] = value[0] if value else line[place] ^ 1
        lines[seq - 1] = bytes(line)
        path = trail.segments()[(seq - 1) // 8]
        path.write_bytes(b"".join(lines[(seq - 1) // 8 * 8 :][:8]))

    return tamper


def remove(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        path = trail.segments()[(seq - 1) // 8]
        lines = path.read_bytes().splitlines(keepends=True)
        del lines[(seq - 1) % 8]
        path.write_bytes(b"".join(lines))

    return tamper


def swap(first: int, second: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        lines = trail.lines()
        lines[first - 1], lines[second - 1] = lines[second - 1], lines[first - 1]
        trail.write(lines)

    return tamper


def repeat(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        lines = trail.lines()
        lines.insert(seq, lines[seq - 1])
        trail.write(lines)

    return tamper


def insert(seq: int, *, renumber: bool = False) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        lines = trail.lines()
        lines.insert(seq - 1, changed(lines[seq - 1]))
        trail.write(rechained(lines, seq) if renumber else lines)

    return tamper


def rewrite(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        lines = trail.lines()
        lines[seq - 1] = changed(lines[seq - 1])
        trail.write(rechained(lines, seq))

    return tamper


def cut_tail(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        trail.write(trail.lines()[: seq - 1])

    return tamper


def truncate(size: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        path = trail.segments()[-1]
        path.write_bytes(path.read_bytes()[:-size])

    return tamper


def remove_segment(number: int) -> Callable[[Trail], None]:
    return lambda trail: trail.segments()[number].unlink()


def swap_segments(trail: Trail) -> None:
    first, second, _ = trail.segments()
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def rename_segment(trail: Trail) -> None:
    path = trail.segments()[2]
    path.rename(path.with_name("trail-000000000018.jsonl"))


TAMPERS: list[tuple[str, Callable[[Trail], None], int]] = [
    ("first entry changed", edit(1), 1),
    ("entry changed", edit(5), 5),
    ("last of a segment changed", edit(8), 8),
    ("entry at a checkpoint changed", edit(10), 10),
    ("entry after a checkpoint changed", edit(11), 11),
    ("entry before the last changed", edit(23), 23),
    ("last entry changed", edit(24), 24),
    ("two neighbours changed", edit_both(5), 5),
    ("last two changed", edit_both(23), 23),
    ("one byte: opening brace", byte(6, 0), 6),
    ("one byte: number", byte(6, 7), 6),
    ("one byte: time", byte(6, 30), 6),
    ("one byte: in sealed", byte(6, -120), 6),
    ("one byte: in prev", byte(6, -20), 6),
    ("one byte: in prev of the first", byte(1, -20), 1),
    ("one byte: in prev of the last", byte(24, -20), 24),
    ("one byte: name of prev", byte(6, -72), 6),
    ("one byte: closing brace", byte(6, -2), 6),
    ("one byte: newline away", byte(6, -1, b" "), 6),
    ("one byte: newline of the last away", byte(24, -1, b" "), 24),
    ("one byte: newline put in", byte(6, 60, b"\n"), 6),
    ("first entry removed", remove(1), 1),
    ("entry removed", remove(12), 12),
    ("last of a segment removed", remove(16), 16),
    ("last entry removed", remove(24), 24),
    ("neighbours swapped", swap(4, 5), 4),
    ("neighbours over a checkpoint swapped", swap(10, 11), 10),
    ("far apart swapped", swap(3, 21), 3),
    ("entry put in", insert(13), 13),
    ("entry repeated", repeat(13), 14),
    ("entry put in, rest renumbered and rechained", insert(11, renumber=True), 11),
    ("tail cut after a checkpoint", cut_tail(22), 22),
    ("tail cut at a checkpoint", cut_tail(21), 21),
    ("last line cut short", truncate(40), 24),
    ("last newline cut", truncate(1), 24),
    ("first segment removed", remove_segment(0), 1),
    ("middle segment removed", remove_segment(1), 9),
    ("last segment removed", remove_segment(2), 17),
    ("segments swapped", swap_segments, 1),
    ("segment renamed", rename_segment, 17),
    ("all rewritten with valid prev", rewrite(1), 1),
    ("rewritten after a checkpoint with valid prev", rewrite(11), 11),
    ("last one rewritten with valid prev", rewrite(24), 24),
]
