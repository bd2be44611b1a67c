"""The independent verifier of the audit trail: shares no code with the writer, and is one file that can be
copied to another machine: `python verify.py FOLDER PUBLIC_KEY [DATABASE] [--anchor=FOLDER]...`.

It needs the files, the public key, and nothing else; a database, where given, is compared with them row by
row. The format is that of docs/audit-trail.md. Every entry is held to three things:

1. its place: entry n is line n, numbered n, without gaps;
2. its neighbour: `prev` is the leaf hash (RFC 6962 section 2.1) of the line before it;
3. the signatures: at every checkpoint the Merkle root over all lines so far is the one that was signed.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_SEGMENT = re.compile(r"trail-(\d{12})\.jsonl")
_GENESIS = b"0" * 64
_SETTLE_SECONDS = 0.25  # a line or first checkpoint that a running node is writing is whole after this time


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in the first `entries` lines, of which checkpoints cover the first `signed`.

    `first_bad` is the number of the first entry that is not what it was (None: none, or the fault is in a
    checkpoint); `problem` says what is wrong and where; `pending` rows are not yet in the files. The first `purged`
    entries are past their retention: a signed stub stands for them.
    """

    ok: bool
    entries: int
    checkpoints: int
    signed: int = 0
    first_bad: int | None = None
    problem: str = ""
    pending: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class _Signed:
    """One checkpoint whose signature holds: `size` entries have `root`; `prev` is that of the last of them.

    A stub, which stands for purged entries, also has their `last` leaf hash (hex) and the `peaks` of their tree.
    """

    size: int
    root: bytes
    prev: bytes | None
    where: str
    last: bytes | None = None
    peaks: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Stub:
    """Where the trail begins: behind `size` purged entries with these subtree roots; `last` is the next `prev`."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()
    last: bytes = _GENESIS


class _Files:
    """The segments of a trail that begins behind a stub; their lines, and where each entry stands."""

    def __init__(self, folder: Path, stub: _Stub) -> None:
        matches = ((_SEGMENT.fullmatch(path.name), path) for path in folder.iterdir())
        parts = sorted((int(match[1]), path) for match, path in matches if match)
        self.parts = [part for part in parts if part[0] > stub.size]  # a crash may have left what was purged
        self.stub = stub

    def lines(self) -> Iterator[bytes]:
        """Yield every line of every segment with its newline."""
        for _, path in self.parts:
            with path.open("rb", buffering=1 << 20) as stream:
                yield from stream

    def place(self, seq: int) -> str:
        """Return `file:line` of the line where entry `seq` should be."""
        position = seq - self.stub.size
        for _, path in self.parts:
            with path.open("rb") as stream:
                count = sum(1 for _ in stream)
            if position <= count:
                return f"{path.name}:{position}"
            position -= count
        return "the end of the trail"


@dataclass(frozen=True, slots=True)
class _Fault:
    """Entries `first`..`last` hold the first bad one (None: a checkpoint is bad)."""

    first: int | None
    last: int | None
    problem: str


def verify(
    folder: Path, public_key_path: Path, database: Path | None = None, anchors: Sequence[Path] = ()
) -> Verification:
    """Check the trail in `folder` against the verifier key in the file `public_key_path`.

    `database` is the node's SQLite file, opened read-only; `anchors` are folders with more checkpoints. Nothing is
    written and nothing raised for a broken trail; OSError when a file cannot be read, ValueError when the key is none,
    sqlite3.Error when the database is none.
    """
    name, public = _public_key(public_key_path.read_text(encoding="utf-8"))
    stub, bad_stub = _read_stub(folder / "purged.note", name, public)
    drawers = (folder / "checkpoints", *anchors)
    signed, forged = _checkpoints(drawers, name, public)
    files = _Files(folder, stub)  # behind the checkpoints: a running node may begin a segment, and sign it, meanwhile
    if not signed and forged is None and files.parts and not stub.size:
        time.sleep(_SETTLE_SECONDS)
        signed, forged = _checkpoints(drawers, name, public)
        files = _Files(folder, stub)
    walk = _Walk(files, {note.size: note for note in signed})
    fault = walk.run()
    if fault is None and signed and signed[-1].size > walk.entries:
        first, last = walk.entries + 1, signed[-1].size
        text = f"Entries {first} to {last} are missing: {signed[-1].where} was signed over {last} entries."
        fault = _Fault(first, first, text)
    pending = 0
    if database is not None:
        limit = walk.entries if fault is None else (fault.last or walk.entries)
        differing, pending = _compare(files, database, limit, complete=fault is None)
        fault = _narrow(fault, differing)
    if walk.entries and not (signed or stub.size):
        forged = forged or _Fault(None, None, "No checkpoint covers the trail, so nothing proves it.")
    fault = fault or bad_stub or forged
    result = Verification(fault is None, walk.entries, len(signed), walk.trusted, pending=pending, purged=stub.size)
    return result if fault is None else replace(result, first_bad=fault.first, problem=fault.problem)


class _Walk:
    """One pass over all lines. `entries` were read before the end or a fault; a right root covers `trusted`."""

    def __init__(self, files: _Files, signed: dict[int, _Signed]) -> None:
        self._files = files
        self._signed = signed
        self.entries = self.trusted = files.stub.size

    def run(self) -> _Fault | None:
        """Read to the end or to the first fault."""
        stub, lines = self._files.stub, self._files.lines()
        sizes = iter(sorted(size for size in self._signed if size > stub.size))
        stop = next(sizes, 0)
        peaks = list(stub.peaks)
        previous, before, seq = stub.last, b"", stub.size
        leaf_prefix = sha256(b"\x00")
        for seq, raw in enumerate(lines, start=stub.size + 1):
            line = raw[:-1]
            if not (raw.startswith(b'{"seq":%d,' % seq) and raw.endswith(b',"prev":"' + previous + b'"}\n')):
                after = next(lines, b"")[:-1]
                if raw[-1:] == b"\n" and line.startswith(b'{"seq":%d,' % seq) and _has_prev(line):
                    return self._broken_link(seq, line, previous, before, after)
                return self._misplaced(seq, raw, before, after)
            leaf = leaf_prefix.copy()
            leaf.update(line)
            node = leaf.digest()
            previous, before = node.hex().encode(), line
            left = seq - 1
            while left & 1:
                node = sha256(b"\x01" + peaks.pop() + node).digest()
                left >>= 1
            peaks.append(node)
            if seq == stop:
                if _root(peaks) != self._signed[seq].root:
                    self.entries = seq
                    return self._wrong_root(seq, line)
                self.trusted = seq
                stop = next(sizes, 0)
        self.entries = seq
        return self._misnamed()

    def _misnamed(self) -> _Fault | None:
        """Say which segment does not begin with the entry its name promises; all lines are in order here."""
        seq = self._files.stub.size + 1
        for first, path in self._files.parts:
            if first != seq:
                return _Fault(seq, seq, f"Segment {path.name} begins with entry {seq}: it was renamed.")
            with path.open("rb") as stream:
                seq += sum(1 for _ in stream)
        return None

    def _misplaced(self, seq: int, raw: bytes, before: bytes, after: bytes) -> _Fault | None:
        """Describe a line that is not entry `seq`; None when a running node was just writing it."""
        self.entries = seq - 1
        where = self._files.place(seq)
        if raw[-1:] != b"\n" and seq > max(self._signed, default=0):
            time.sleep(_SETTLE_SECONDS)
            again = next(itertools.islice(self._files.lines(), seq - 1 - self._files.stub.size, None), b"")
            if again.startswith(raw) and again.endswith(b"\n"):
                return None
        if raw[-1:] != b"\n":
            return _Fault(seq, seq, f"Entry {seq} is cut off at {where}.")
        match = re.match(rb'\{"seq":(\d{1,18}),', raw)
        if match is None or int(match[1]) == seq:
            return _Fault(seq, seq, f"Entry {seq} at {where} is not an entry of the trail: it was changed or put in.")
        found, line = int(match[1]), raw[:-1]
        if found == seq - 1 and line != before and _leaf(line) == after[-66:-2]:
            where = self._files.place(found)
            return _Fault(found, seq, f"Entry {found} at {where} was put in: the true one stands behind it.")
        return _Fault(seq, seq, f"Entry {seq} is not in its place: {where} holds an entry numbered {found}.")

    def _broken_link(self, seq: int, line: bytes, previous: bytes, before: bytes, after: bytes) -> _Fault:
        """Tell whether entry `seq` or the one before it was changed, when the link between them does not hold."""
        self.entries = seq
        # The line after knows what this one was; so does a checkpoint that ends here or ended just before.
        mended = line[:-66] + previous + line[-2:]
        note = self._signed.get(seq)
        if _leaf(line) == after[-66:-2] or (note and note.prev == line[-66:-2]):
            bad = seq - 1
        elif (
            self.trusted >= seq - 1
            or (note and note.prev == previous)
            or _leaf(mended) == after[-66:-2]
            or (not _is_json(line) and _is_json(before))
        ):
            bad = seq
        else:
            bad = seq - 1
        bad = max(bad, self._files.stub.size + 1)
        where = self._files.place(bad)
        return _Fault(bad, seq, f"Entry {bad} at {where} was changed: it is not what its neighbours say it was.")

    def _wrong_root(self, size: int, line: bytes) -> _Fault:
        """Say which entries a checkpoint disowns, though every link between them holds."""
        note = self._signed[size]
        if note.prev == line[-66:-2] or self.trusted == size - 1:
            where = self._files.place(size)
            return _Fault(size, size, f"Entry {size} at {where} was changed: it is not what {note.where} signed.")
        first = self.trusted + 1
        where = self._files.place(first)
        text = (
            f"Entries {first} (at {where}) to {size} were rewritten from some point on: not what {note.where} signed."
        )
        return _Fault(first, size, text)


def _narrow(fault: _Fault | None, differing: tuple[int, str] | None) -> _Fault | None:
    """Combine what the files and what the database say; the earlier fault wins, and a range becomes one entry."""
    if differing is None:
        return fault
    seq, problem = differing
    if fault is None or fault.first is None or fault.last is None or seq < fault.first:
        return _Fault(seq, seq, problem)
    if seq <= fault.last:
        return _Fault(seq, seq, problem if seq != fault.first else fault.problem)
    return fault


def _compare(files: _Files, database: Path, limit: int, *, complete: bool) -> tuple[tuple[int, str] | None, int]:
    """Compare the first `limit` lines with the rows of the database.

    Returns the first row that differs, with a sentence, and how many rows wait behind the end of a `complete`
    trail.
    """
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        purged = files.stub.size
        query = "SELECT seq, entry FROM audit_entries WHERE seq > ? ORDER BY seq"
        rows = iter(connection.execute(query, (purged,)))
        for seq, raw in enumerate(itertools.islice(files.lines(), limit - purged), start=purged + 1):
            number, entry = next(rows, (0, ""))
            if number != seq:
                where = files.place(seq)
                return (seq, f"Entry {seq} at {where} is missing from the database."), 0
            body = b'{"seq":%d,%s,"prev":"' % (seq, str(entry)[1:-1].encode())
            if raw[:-67] != body:
                where = files.place(seq)
                return (seq, f"Entry {seq} at {where} differs from its row in the database."), 0
        pending = sum(1 for _ in rows) if complete else 0
    finally:
        connection.close()
    return None, pending


def _checkpoints(folders: Sequence[Path], name: str, public: Ed25519PublicKey) -> tuple[list[_Signed], _Fault | None]:
    """Return the checkpoints whose signature holds, by size, and the first one that is forged or contradicts."""
    signed: dict[int, _Signed] = {}
    missing = [folder for folder in folders[1:] if not folder.is_dir()]
    forged = _Fault(None, None, f"The anchor {missing[0]} is not there.") if missing else None
    for path in [path for folder in folders for path in sorted(folder.glob("*.notes"))]:
        blocks = path.read_bytes().split(b"\n\n")
        whole = (len(blocks) - 1) // 2 * 2  # a last note without its empty line is one that a crash has torn
        size = 0
        for number in range(0, whole, 2):
            where = f"checkpoint {number // 2 + 1} of {path.name if path.parent == folders[0] else path}"
            note = _open_note(blocks[number], blocks[number + 1], name, public, where)
            if note is None:
                forged = forged or _Fault(None, None, f"The signature of {where} does not hold: it is forged.")
                continue
            if note.size < size or (note.size in signed and signed[note.size].root != note.root):
                forged = forged or _Fault(None, None, f"{where} contradicts an earlier one, though it is signed.")
                continue
            size = note.size
            signed[size] = note
    return [signed[size] for size in sorted(signed)], forged


def _open_note(body: bytes, signatures: bytes, name: str, public: Ed25519PublicKey, where: str) -> _Signed | None:
    """Return the checkpoint in one note, None when it is malformed or not signed by `public`."""
    key = sha256(name.encode() + b"\n\x01" + public.public_bytes_raw()).digest()[:4]
    try:
        origin, size, root, *extension = body.decode().split("\n")
        lines = [line.split(" ") for line in signatures.decode().split("\n")]
        blobs = [base64.b64decode(line[2], validate=True) for line in lines if line[:2] == ["—", name]]
        public.verify(next(blob[4:] for blob in blobs if blob[:4] == key), body + b"\n")
        digest = base64.b64decode(root, validate=True)
        named = [line.encode().partition(b" ") for line in extension]
        prev = next((value for word, _, value in named if word == b"prev"), None)
        last = next((value for word, _, value in named if word == b"last"), None)
        peaks = tuple(bytes.fromhex(value.decode()) for word, _, value in named if word == b"peak")
        return _Signed(int(size), digest, prev, where, last, peaks) if origin == name else None
    except (ValueError, IndexError, StopIteration, InvalidSignature):
        return None


def _read_stub(path: Path, name: str, public: Ed25519PublicKey) -> tuple[_Stub, _Fault | None]:
    """Return what stands for purged entries; nothing where there is no stub, and a fault where it is not signed."""
    if not path.exists():
        return _Stub(), None
    body, _, signatures = path.read_bytes().rstrip(b"\n").partition(b"\n\n")
    note = _open_note(body, signatures, name, public, path.name)
    if note is None or note.last is None or not note.peaks or _root(list(note.peaks)) != note.root:
        return _Stub(), _Fault(None, None, f"The signature of {path.name} does not hold: it is forged.")
    return _Stub(note.size, note.peaks, note.last), None


def _public_key(text: str) -> tuple[str, Ed25519PublicKey]:
    """Read `name+keyid+base64(0x01 || public key)` (C2SP signed-note). Raises ValueError."""
    name, _, rest = text.strip().partition("+")
    ident, _, encoded = rest.partition("+")
    try:
        material = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        material = b""
    if len(material) != 33 or material[0] != 1 or ident != sha256(name.encode() + b"\n" + material).hexdigest()[:8]:
        raise ValueError("The file does not hold the public key of an audit trail.")
    return name, Ed25519PublicKey.from_public_bytes(material[1:])


def _has_prev(line: bytes) -> bool:
    """Whether the line ends with a `prev` field."""
    return line[-75:-66] == b',"prev":"' and line.endswith(b'"}')


def _leaf(line: bytes) -> bytes:
    """Return the leaf hash of a line as hex digits."""
    return sha256(b"\x00" + line).hexdigest().encode()


def _root(peaks: list[bytes]) -> bytes:
    """Return the Merkle root over complete subtrees, largest first."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = sha256(b"\x01" + peak + root).digest()
    return root


def _is_json(line: bytes) -> bool:
    """Whether the line is one JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _main(arguments: list[str]) -> int:
    """Verify what the command line names; 0 when it holds, 1 when not, 2 when it was not asked rightly."""
    anchors = [Path(word[9:]) for word in arguments if word.startswith("--anchor=")]
    paths = [Path(word) for word in arguments if not word.startswith("--anchor=")]
    if len(paths) not in (2, 3):
        print("usage: verify.py FOLDER PUBLIC_KEY [DATABASE] [--anchor=FOLDER]...", file=sys.stderr)
        return 2
    result = verify(paths[0], paths[1], paths[2] if paths[2:] else None, anchors)
    print(f"{result.entries} entries, {result.checkpoints} checkpoints over {result.signed}, {result.pending} pending.")
    print("The trail holds." if result.ok else result.problem)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
