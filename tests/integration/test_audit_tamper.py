"""The tamper suite: a trail of 100,000 entries, manipulated in every way, and each time the first bad entry is named.

Some need the database beside the files to be found, and what was done to both needs an anchor: a folder elsewhere,
which holds every tenth checkpoint.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert

from radnode.audit import events
from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, audit_entries, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.tree import Tree, leaf_hash
from radnode.audit.verify import Verification, verify

SIZE, STEP, ANCHORED = 100_000, 1000, 10_000  # entries, entries between checkpoints, and between those of the anchor
PER_SEGMENT = 10_000
EARLIER = 60_000  # what "an earlier day" means: the trail as it was when it had so many
SIGNER = Signer.generate("radnode.example/audit")
Lines = list[bytes]


@dataclass
class Trail:
    """A copy of the trail that may be spoilt; its files are shared with the original until they are written to."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "audit"

    def segment(self, seq: int) -> Path:
        """The segment with an entry."""
        return self.folder / f"trail-{(seq - 1) // PER_SEGMENT * PER_SEGMENT + 1:012d}.jsonl"

    def notes(self) -> Path:
        [path] = self.folder.glob("checkpoints/*.notes")
        return path

    def checkpoints(self) -> list[str]:
        """The notes, one each."""
        blocks = self.notes().read_text().split("\n\n")[:-1]
        return [f"{body}\n\n{end}\n\n" for body, end in zip(blocks[::2], blocks[1::2], strict=True)]

    def write(self, path: Path, data: bytes) -> None:
        path.unlink(missing_ok=True)  # not the original, to which it is a link
        path.write_bytes(data)

    def change(self, seq: int, how: Callable[[Lines, int], object]) -> None:
        """Change the lines of one segment; `how` gets them and the index of the entry."""
        path = self.segment(seq)
        lines = path.read_bytes().splitlines(keepends=True)
        how(lines, (seq - 1) % PER_SEGMENT)
        self.write(path, b"".join(lines))

    def rewrite(self, seq: int) -> list[bytes]:
        """Change an entry and compute every `prev` behind it anew, as a careful forger would; return all leaves."""
        prev, leaves = "", []
        for first in range(1, SIZE + 1, PER_SEGMENT):
            lines = self.segment(first).read_bytes().splitlines()
            for index, line in enumerate(lines):
                if first + index == seq:
                    lines[index] = line.replace(b"CT1", b"CT2")
                if first + index > seq:
                    lines[index] = line[:-66] + prev.encode() + line[-2:]
                leaves.append(leaf_hash(lines[index]))
                prev = leaves[-1].hex()
            if first + PER_SEGMENT > seq:
                self.write(self.segment(first), b"".join(line + b"\n" for line in lines))
        return leaves

    def run(self, statement: str) -> None:
        path = self.home / "node.db"
        copied = path.read_bytes()
        self.write(path, copied)
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    def restore(self, *, files: bool = False, notes: bool = False, database: bool = False) -> None:
        """Put back what there was on an earlier day."""
        if files:
            for first in range(EARLIER + 1, SIZE + 1, PER_SEGMENT):
                self.segment(first).unlink()
        if notes:
            self.write(self.notes(), "".join(self.checkpoints()[: EARLIER // STEP]).encode())
        if database:
            self.run(f"DELETE FROM audit_entries WHERE seq > {EARLIER}")  # noqa: S608 (a number of ours)

    def verified(self, *, database: bool, anchor: bool) -> Verification:
        anchors = [self.home / "anchor"] if anchor else []
        return verify(self.folder, self.home / "audit.pub", self.home / "node.db" if database else None, anchors)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("tamper")
    (home / "audit.pub").write_text(str(SIGNER.verifier))
    (home / "anchor").mkdir()
    engine = create_engine(f"sqlite:///{home / 'node.db'}")
    metadata.create_all(engine)
    row = AuditLog(bytes(32)).compose(AuditRecord(events.IMAGE_RECEIVED, Actor(ae="CT1"), identity={"PatientID": "1"}))
    with engine.begin() as connection:
        rows = ({"entry": row.replace('"patient":null', f'"patient":"{number:032x}"')} for number in range(SIZE))
        while some := list(islice(rows, 10_000)):
            connection.execute(insert(audit_entries), some)
    with Sequencer(engine, home / "audit", SIGNER, SIGNER.verifier.name) as sequencer:
        while sequencer.step():
            note = sequencer.checkpoint()
            if note is not None and note.size % ANCHORED == 0:
                with (home / "anchor" / "2026.notes").open("a") as anchor:
                    anchor.write(SIGNER.sign(note.text()) + "\n")
    engine.dispose()
    lines = b"".join(path.read_bytes() for path in sorted((home / "audit").glob("trail-*"))).splitlines(keepends=True)
    for first in range(1, SIZE + 1, PER_SEGMENT):
        path = home / "audit" / f"trail-{first:012d}.jsonl"
        path.write_bytes(b"".join(lines[first - 1 : first - 1 + PER_SEGMENT]))
    yield home


@pytest.fixture
def trail(original: Path, tmp_path: Path) -> Trail:
    return Trail(Path(shutil.copytree(original, tmp_path / "home", copy_function=os.link)))


def edit(seq: int) -> Callable[[Trail], None]:
    def how(lines: Lines, index: int) -> None:
        lines[index] = lines[index].replace(b'"CT1"', b'"CT2"')

    return lambda trail: trail.change(seq, how)


def flip_bit(seq: int) -> Callable[[Trail], None]:
    def how(lines: Lines, index: int) -> None:
        lines[index] = lines[index][:100] + bytes([lines[index][100] ^ 1]) + lines[index][101:]

    return lambda trail: trail.change(seq, how)


def delete(seq: int, count: int = 1) -> Callable[[Trail], None]:
    def how(lines: Lines, index: int) -> None:
        del lines[index : index + count]

    return lambda trail: trail.change(seq, how)


def insert_copy(seq: int) -> Callable[[Trail], None]:
    return lambda trail: trail.change(seq, lambda lines, index: lines.insert(index, lines[index - 1]))


def insert_invented(seq: int) -> Callable[[Trail], None]:
    """An entry with the right number and the right `prev`; the true one stands behind it."""

    def how(lines: Lines, index: int) -> None:
        invented = lines[index].replace(b'"CT1"', b'"CT9"')
        lines.insert(index, invented)

    return lambda trail: trail.change(seq, how)


def swap(seq: int) -> Callable[[Trail], None]:
    def how(lines: Lines, index: int) -> None:
        lines[index], lines[index + 1] = lines[index + 1], lines[index]

    return lambda trail: trail.change(seq, how)


def swap_far(trail: Trail) -> None:
    near, far = (trail.segment(seq).read_bytes().splitlines(keepends=True) for seq in (15_001, 85_001))
    near[5000], far[5000] = far[5000], near[5000]
    trail.write(trail.segment(15_001), b"".join(near))
    trail.write(trail.segment(85_001), b"".join(far))


def turn_round(trail: Trail) -> None:
    def how(lines: Lines, index: int) -> None:
        lines[index : index + 500] = reversed(lines[index : index + 500])

    trail.change(33_001, how)


def truncate(seq: int, within: int = 0) -> Callable[[Trail], None]:
    """Cut the segment off before an entry, or within its line; what follows in other segments is removed."""

    def tamper(trail: Trail) -> None:
        def how(lines: Lines, index: int) -> None:
            lines[index:] = [lines[index][:within]]

        trail.change(seq, how)
        for first in range(seq + PER_SEGMENT, SIZE + 1, PER_SEGMENT):
            trail.segment(first).unlink()

    return tamper


def remove_segments(*seqs: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        for seq in seqs:
            trail.segment(seq).unlink()

    return tamper


def swap_segments(trail: Trail) -> None:
    first, second = trail.segment(20_001), trail.segment(30_001)
    contents = first.read_bytes(), second.read_bytes()
    trail.write(first, contents[1])
    trail.write(second, contents[0])


def rename_segment(trail: Trail) -> None:
    trail.segment(90_001).rename(trail.folder / "trail-000000090002.jsonl")


def old_segment(trail: Trail) -> None:
    """The newest segment as it was at noon."""
    trail.change(95_001, lambda lines, index: lines.__delitem__(slice(index, None)))


def rewrite(seq: int) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        trail.rewrite(seq)

    return tamper


def forge_all(trail: Trail) -> None:
    """Rewrite the chain and sign every checkpoint over it anew, with a key of one's own and the right name."""
    forger, tree, notes = Signer.generate(SIGNER.verifier.name), Tree(), []
    for number, leaf in enumerate(trail.rewrite(44_001), start=1):
        tree.append(leaf)
        if number % STEP == 0:
            notes.append(forger.sign(Checkpoint(SIGNER.verifier.name, number, tree.root()).text()) + "\n")
    trail.write(trail.notes(), "".join(notes).encode())


def forge_checkpoint(old: str, new: str) -> Callable[[Trail], None]:
    def tamper(trail: Trail) -> None:
        trail.write(trail.notes(), trail.notes().read_bytes().replace(old.encode(), new.encode()))

    return tamper


def sign_one_anew(trail: Trail) -> None:
    notes = trail.checkpoints()
    text = notes[50].partition("\n\n")[0] + "\n"
    notes[50] = Signer.generate(SIGNER.verifier.name).sign(text) + "\n"
    trail.write(trail.notes(), "".join(notes).encode())


def no_checkpoints(trail: Trail) -> None:
    trail.notes().unlink()


def rewrite_behind_removed_checkpoints(trail: Trail) -> None:
    """Rewrite the end, remove the checkpoints that would disown it, and change the rows too."""
    trail.rewrite(70_001)
    trail.write(trail.notes(), "".join(trail.checkpoints()[:70]).encode())
    trail.run("UPDATE audit_entries SET entry = replace(entry, 'CT1', 'CT2') WHERE seq = 70001")


def cut_everything_back(trail: Trail) -> None:
    trail.restore(files=True, notes=True, database=True)


FILES, DATABASE, ANCHOR = "files", "database", "anchor"  # what it takes to find it
TAMPERS: dict[str, tuple[Callable[[Trail], None], int | None, str]] = {
    "first entry edited": (edit(1), 1, FILES),
    "entry edited": (edit(54_321), 54_321, FILES),
    "entry at a checkpoint edited": (edit(42_000), 42_000, FILES),
    "last of a segment edited": (edit(30_000), 30_000, FILES),
    "last entry edited": (edit(SIZE), SIZE, FILES),
    "one bit": (flip_bit(77_777), 77_777, FILES),
    "first entry deleted": (delete(1), 1, FILES),
    "entry deleted": (delete(54_321), 54_321, FILES),
    "a thousand deleted": (delete(61_001, 1000), 61_001, FILES),
    "last entry deleted": (delete(SIZE), SIZE, FILES),
    "entry repeated": (insert_copy(54_322), 54_322, FILES),
    "entry invented": (insert_invented(54_321), 54_321, FILES),
    "neighbours swapped": (swap(54_321), 54_321, FILES),
    "entries of two segments swapped": (swap_far, 15_001, FILES),
    "five hundred turned round": (turn_round, 33_001, FILES),
    "cut off in a line": (truncate(54_321, 50), 54_321, FILES),
    "cut off behind a line": (truncate(54_321), 54_321, FILES),
    "cut off at a checkpoint": (truncate(54_001), 54_001, FILES),
    "first segment removed": (remove_segments(1), 1, FILES),
    "segment removed": (remove_segments(50_001), 50_001, FILES),
    "last segment removed": (remove_segments(90_001), 90_001, FILES),
    "all segments removed": (remove_segments(*range(1, SIZE, PER_SEGMENT)), 1, FILES),
    "segments swapped": (swap_segments, 20_001, FILES),
    "segment renamed": (rename_segment, 90_001, FILES),
    "old file put back": (old_segment, 95_001, FILES),
    "all old files put back": (lambda trail: trail.restore(files=True), EARLIER + 1, FILES),
    "rewritten from the first with fitting hashes": (rewrite(1), 1, FILES),
    "rewritten with fitting hashes": (rewrite(54_001), 54_001, FILES),
    "last one rewritten": (rewrite(SIZE), SIZE, FILES),
    "rewritten and every checkpoint forged": (forge_all, 44_001, DATABASE),
    "rewritten between two checkpoints": (rewrite(54_321), 54_321, DATABASE),
    "checkpoint that claims less": (forge_checkpoint("\n51000\n", "\n50999\n"), None, FILES),
    "checkpoint signed with another key": (sign_one_anew, None, FILES),
    "checkpoints removed": (no_checkpoints, None, FILES),
    "row changed": (lambda t: t.run("UPDATE audit_entries SET entry = '{}' WHERE seq = 54321"), 54_321, DATABASE),
    "row deleted": (lambda t: t.run("DELETE FROM audit_entries WHERE seq = 54321"), 54_321, DATABASE),
    "old database restored": (lambda t: t.restore(database=True), EARLIER + 1, DATABASE),
    "old files and checkpoints put back": (lambda t: t.restore(files=True, notes=True), EARLIER + 1, ANCHOR),
    "everything restored from an old backup": (cut_everything_back, EARLIER + 1, ANCHOR),
    "end rewritten, later checkpoints removed": (rewrite_behind_removed_checkpoints, 70_001, ANCHOR),
}


def test_suite_has_the_kinds_that_are_promised(original: Path) -> None:
    assert len(TAMPERS) >= 25
    found = Trail(original).verified(database=True, anchor=True)
    assert (found.ok, found.entries, found.signed) == (True, SIZE, SIZE)


@pytest.mark.parametrize(("tamper", "first_bad", "needs"), TAMPERS.values(), ids=TAMPERS)
def test_manipulation_of_100_000_entries_is_found_and_the_first_bad_one_named(
    trail: Trail, tamper: Callable[[Trail], None], first_bad: int | None, needs: str
) -> None:
    tamper(trail)
    found = trail.verified(database=needs == DATABASE, anchor=needs == ANCHOR)
    assert not found.ok
    assert found.first_bad == first_bad, found.problem
    assert first_bad is None or str(first_bad) in found.problem
    if needs == ANCHOR:  # nothing else could tell: files, checkpoints and rows agree
        assert trail.verified(database=True, anchor=False).ok


def test_anchor_that_is_gone_is_said(trail: Trail) -> None:
    shutil.rmtree(trail.home / "anchor")
    found = trail.verified(database=False, anchor=True)
    assert (found.ok, found.first_bad) == (False, None)
    assert "anchor" in found.problem


def test_original_was_not_touched(original: Path) -> None:
    lines = [line for path in sorted((original / "audit").glob("trail-*")) for line in path.read_bytes().splitlines()]
    assert len(lines) == SIZE
    assert sha256(b"\0" + lines[-2]).hexdigest().encode() == lines[-1][-66:-2]
