"""The tamper table: whatever is done to the files, the verifier says so and names the first bad entry."""

from __future__ import annotations

import ast
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from support.tampering import (
    CHECKPOINTS,
    SIGNER,
    SIZE,
    TAMPERS,
    Trail,
    byte,
    edit,
    remove,
    rewrite,
)

from radnode.audit import events
from radnode.audit import verify as verify_module
from radnode.audit.checkpoint import Signer
from radnode.audit.events import Actor, AuditRecord
from radnode.audit.log import AuditLog, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.verify import Verification, verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("original")
    (home / "audit.pub").write_text(str(SIGNER.verifier))
    engine = create_engine(f"sqlite:///{home / 'radnode.db'}")
    metadata.create_all(engine)
    log = AuditLog(bytes(32))
    with Sequencer(engine, home / "audit", SIGNER, "radnode.example/audit") as sequencer:
        for number in range(1, SIZE + 1):
            patient, identity = f"{number:032x}", {"PatientID": str(number)}
            record = AuditRecord(events.IMAGE_RECEIVED, Actor(ae="CT1"), patient=patient, identity=identity)
            with engine.begin() as connection:
                log.record(connection, record)
            if number in CHECKPOINTS:
                sequencer.step()
                sequencer.checkpoint()
    engine.dispose()
    (whole,) = (home / "audit").glob("*.jsonl")
    lines = whole.read_bytes().splitlines(keepends=True)
    for first in (1, 9, 17):
        (home / "audit" / f"trail-{first:012d}.jsonl").write_bytes(b"".join(lines[first - 1 : first + 7]))
    return home


@pytest.fixture
def trail(original: Path, tmp_path: Path) -> Trail:
    home = shutil.copytree(original, tmp_path / "home")
    return Trail(home / "audit", home / "audit.pub", home / "radnode.db")


def test_segment_that_begins_while_a_running_trail_is_verified_is_not_missing(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, [notes] = max(trail.folder.glob("*.jsonl")), trail.folder.glob("checkpoints/*.notes")
    lines, signed, look = newest.read_bytes(), notes.read_bytes(), verify_module._checkpoints
    newest.unlink()
    notes.write_bytes(b"\n\n".join(signed.split(b"\n\n")[:2]) + b"\n\n")

    def come(*arguments: Any) -> Any:
        newest.write_bytes(lines)
        notes.write_bytes(signed)
        return look(*arguments)

    monkeypatch.setattr(verify_module, "_checkpoints", come)
    assert trail.check() == Verification(True, SIZE, len(CHECKPOINTS), max(CHECKPOINTS))


@pytest.mark.parametrize(("tamper", "seq"), [row[1:] for row in TAMPERS], ids=[row[0] for row in TAMPERS])
def test_tampering_is_found_and_the_first_bad_entry_named(
    trail: Trail, tamper: Callable[[Trail], None], seq: int
) -> None:
    tamper(trail)
    result = trail.check()
    assert not result.ok
    assert result.first_bad == seq, result.problem
    assert str(seq) in result.problem
    with_database = trail.check(with_database=True)
    assert (with_database.ok, with_database.first_bad) == (False, seq)


def test_untouched_trail_verifies(trail: Trail) -> None:
    assert trail.check() == Verification(True, SIZE, 3, SIZE)
    assert trail.check(with_database=True) == Verification(True, SIZE, 3, SIZE)


def test_rewriting_between_checkpoints_is_narrowed_to_them_and_exact_with_the_database(trail: Trail) -> None:
    rewrite(14)(trail)
    result = trail.check()
    assert (result.ok, result.first_bad, result.signed) == (False, 11, 10)
    assert "Entries 11 (at trail-000000000009.jsonl:3) to 20 were rewritten" in result.problem
    assert trail.check(with_database=True).first_bad == 14


def test_problem_names_file_and_line(trail: Trail) -> None:
    edit(12)(trail)
    assert "Entry 12 at trail-000000000009.jsonl:4 was changed" in trail.check().problem


def test_earliest_of_several_changes_is_named(trail: Trail) -> None:
    edit(20)(trail)
    remove(22)(trail)
    edit(3)(trail)
    assert trail.check().first_bad == 3


def forged(text: str) -> str:
    return text.replace("\n24\n", "\n23\n")


def resigned(text: str) -> str:
    body = text.partition("\n\n")[0] + "\n"
    return Signer.generate("radnode.example/audit").sign(body.replace("\n10\n", "\n11\n")) + "\n" + text


def unsigned(text: str) -> str:
    return text.replace("— radnode", "— someone")


@pytest.mark.parametrize("forge", [forged, resigned, unsigned])
def test_forged_checkpoint_is_found(trail: Trail, forge: Callable[[str], str]) -> None:
    trail.notes().write_text(forge(trail.notes().read_text()))
    result = trail.check()
    assert not result.ok
    assert result.first_bad is None
    assert "of 20" in result.problem
    assert "forged" in result.problem


def test_signed_checkpoints_that_contradict_each_other_are_found(trail: Trail) -> None:
    body = trail.notes().read_text().split("\n\n")[0].split("\n")
    body[2] = "A" * 43 + "="
    trail.notes().write_text(trail.notes().read_text() + SIGNER.sign("\n".join(body) + "\n") + "\n")
    result = trail.check()
    assert not result.ok
    assert "contradicts" in result.problem


def test_trail_without_any_checkpoint_proves_nothing(trail: Trail) -> None:
    trail.notes().unlink()
    result = trail.check()
    assert (result.ok, result.signed) == (False, 0)
    assert "No checkpoint" in result.problem


def test_entries_behind_the_last_checkpoint_count_as_not_signed(trail: Trail) -> None:
    blocks = trail.notes().read_text().split("\n\n")
    trail.notes().write_text("\n\n".join(blocks[:4]) + "\n\n")
    assert trail.check() == Verification(True, SIZE, 2, 20)


def test_unsigned_entry_that_was_changed_is_found_in_the_database(trail: Trail) -> None:
    blocks = trail.notes().read_text().split("\n\n")
    trail.notes().write_text("\n\n".join(blocks[:4]) + "\n\n")
    edit(24)(trail)
    result = trail.check(with_database=True)
    assert (result.ok, result.first_bad) == (False, 24)


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit_entries SET entry = replace(entry, 'CT1', 'CT2') WHERE seq = 7", 7),
        ("DELETE FROM audit_entries WHERE seq = 9", 9),
        ("DELETE FROM audit_entries WHERE seq > 20", 21),
        ("UPDATE audit_entries SET entry = x'ff' WHERE seq = 2", 2),
    ],
)
def test_change_in_the_database_is_found(trail: Trail, statement: str, seq: int) -> None:
    connection = sqlite3.connect(trail.database)
    connection.execute(statement)
    connection.commit()
    connection.close()
    result = trail.check(with_database=True)
    assert (result.ok, result.first_bad) == (False, seq)
    assert "database" in result.problem


def test_rows_not_yet_in_the_files_are_pending_and_no_error(trail: Trail) -> None:
    connection = sqlite3.connect(trail.database)
    connection.executemany("INSERT INTO audit_entries (entry) VALUES (?)", [("{}",), ("{}",)])
    connection.commit()
    connection.close()
    assert trail.check(with_database=True) == Verification(True, SIZE, 3, SIZE, pending=2)


def test_line_that_a_running_node_is_writing_is_no_fault(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = trail.notes().read_text().split("\n\n")
    trail.notes().write_text("\n\n".join(blocks[:4]) + "\n\n")
    path = trail.segments()[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    monkeypatch.setattr(verify_module.time, "sleep", lambda seconds: path.write_bytes(whole))
    assert trail.check() == Verification(True, SIZE - 1, 2, 20)


def test_empty_folder_verifies_as_empty(tmp_path: Path, trail: Trail) -> None:
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / "empty", trail.key) == Verification(True, 0, 0)


@pytest.mark.parametrize(
    "text",
    ["", "a+b", "radnode.example/audit+00000000+AAAA", str(SIGNER.verifier)[:-4]],
    ids=["nothing", "no key", "key of another name", "key cut short"],
)
def test_file_that_holds_no_key_is_refused(trail: Trail, text: str) -> None:
    trail.key.write_text(text)
    with pytest.raises(ValueError, match="public key of an audit trail"):
        trail.check()


def test_verifier_runs_alone_as_a_copied_file(trail: Trail, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "verify.py"
    alone.parent.mkdir()
    alone.write_bytes(Path(verify_module.__file__).read_bytes())

    def run(*arguments: Path) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-I", alone, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert run(trail.folder, trail.key, trail.database) == (
        0,
        "24 entries, 3 checkpoints over 24, 0 pending.\nThe trail holds.\n",
    )
    edit(5)(trail)
    code, output = run(trail.folder, trail.key)
    assert code == 1
    assert "Entry 5 at trail-000000000001.jsonl:5 was changed" in output
    assert run(trail.folder)[0] == 2


def test_changed_prev_and_body_of_one_entry_is_exact_with_the_database(trail: Trail) -> None:
    edit(5)(trail)
    byte(5, -20)(trail)
    assert trail.check().first_bad in {4, 5}
    assert trail.check(with_database=True).first_bad == 5


def test_verifier_shares_no_code_with_the_writer() -> None:
    tree = ast.parse(Path(verify_module.__file__).read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert names
    assert not [name for name in names if name.split(".")[0] in ("radnode", "sqlalchemy", "structlog", "")]
