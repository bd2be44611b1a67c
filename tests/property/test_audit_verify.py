"""The verifier against random damage: always found, the right entry named, and never an exception."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from radnode.audit import events
from radnode.audit import verify as verify_module
from radnode.audit.checkpoint import Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.verify import Verification, verify

SIZE = 12
SEGMENT = "trail-000000000001.jsonl"
QUICK = settings(max_examples=60)  # each example reads files


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A trail of SIZE entries in one segment, signed after the 5th, the 6th and the last."""
    folder = Path(tempfile.mkdtemp())
    signer = Signer.generate("radnode.example/audit")
    (folder / "audit.pub").write_text(str(signer.verifier))
    engine = create_engine(f"sqlite:///{folder / 'radnode.db'}")
    metadata.create_all(engine)
    log = AuditLog(bytes(32))
    with Sequencer(engine, folder / "audit", signer, signer.verifier.name) as sequencer:
        for number in range(1, SIZE + 1):
            with engine.begin() as connection:
                log.record(connection, AuditRecord(events.IMAGE_RECEIVED, Actor(), detail={"count": number}))
            sequencer.step()
            if number in {5, 6}:
                sequencer.checkpoint()
    engine.dispose()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_module, "_SETTLE_SECONDS", 0)  # nobody is writing here
        yield folder
    shutil.rmtree(folder)


def checked(home: Path, data: bytes, *, database: bool = False) -> Verification:
    """Verify with `data` as the segment, then put the true one back."""
    path = home / "audit" / SEGMENT
    true = path.read_bytes()
    path.write_bytes(data)
    try:
        return verify(home / "audit", home / "audit.pub", home / "radnode.db" if database else None)
    finally:
        path.write_bytes(true)


def content(home: Path) -> bytes:
    return (home / "audit" / SEGMENT).read_bytes()


@QUICK
@given(st.data(), st.booleans())
def test_any_changed_byte_is_found_and_its_entry_named(home: Path, data: st.DataObject, database: bool) -> None:
    damaged = bytearray(content(home))
    place = data.draw(st.integers(0, len(damaged) - 1))
    seq = damaged[:place].count(b"\n") + 1
    damaged[place] = data.draw(st.integers(0, 255).filter(lambda value: value != damaged[place]))
    result = checked(home, bytes(damaged), database=database)
    assert (result.ok, result.first_bad) == (False, seq)


@QUICK
@given(st.permutations(range(SIZE)).filter(lambda order: order != list(range(SIZE))))
def test_any_other_order_is_found_and_its_first_entry_named(home: Path, order: list[int]) -> None:
    lines = content(home).splitlines(keepends=True)
    result = checked(home, b"".join(lines[number] for number in order))
    assert not result.ok
    assert result.first_bad == next(place for place, number in enumerate(order) if place != number) + 1


@QUICK
@given(st.sets(st.integers(0, SIZE - 1), min_size=1))
def test_any_removed_lines_are_found_and_the_first_named(home: Path, gone: set[int]) -> None:
    lines = content(home).splitlines(keepends=True)
    result = checked(home, b"".join(line for number, line in enumerate(lines) if number not in gone))
    assert (result.ok, result.first_bad) == (False, min(gone) + 1)


@QUICK
@given(st.data())
def test_a_cut_anywhere_is_found_and_the_first_lost_entry_named(home: Path, data: st.DataObject) -> None:
    true = content(home)
    length = data.draw(st.integers(0, len(true) - 1))
    result = checked(home, true[:length])
    assert (result.ok, result.first_bad) == (False, true[:length].count(b"\n") + 1)


@QUICK
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_arbitrary_files_are_never_ok_and_never_raise(home: Path, trail: bytes, notes: bytes) -> None:
    path = next((home / "audit" / "checkpoints").iterdir())
    true = path.read_bytes()
    try:
        path.write_bytes(true + notes + b"\n\n" + notes + b"\n\n")
        assert not checked(home, content(home)).ok
        path.write_bytes(notes)
        assert not checked(home, content(home)).ok
    finally:
        path.write_bytes(true)
    assert not checked(home, trail).ok
