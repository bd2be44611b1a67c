"""A backup stays sealed and holds no study key; a restore is opened and verified; what is purged opens in neither."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom.dataset import Dataset
from support.rooms import encoded, modes, request_for, small

from radnode.backup import copy_sparse
from radnode.cli import cli
from radnode.configuration import load_settings
from radnode.errors import KeyUnavailable, RadnodeError
from radnode.initialise import initialise
from radnode.jobs.database import reading
from radnode.jobs.index import get_instance
from radnode.maintenance import DRAFT
from radnode.node import Node
from radnode.part10 import read_file_meta

SECRETS = (b"SECRET-1", b"Secret^Name", b"1.2.3.100")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return initialise(tmp_path_factory.mktemp("made") / "node", 2762, None)


@pytest.fixture
def config(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent, tmp_path / "node", ignore=shutil.ignore_patterns("models"))
    return tmp_path / "node" / "radnode.toml"


def image(number: int, study: str = "1.2.3.100") -> Dataset:
    return small(number, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")


def receive(config: Path, *images: Dataset) -> list[str]:
    node = Node(load_settings(config))
    kept = [node.intake.receive(request_for(dataset), encoded(dataset)).instance for dataset in images]
    node.settle_trail()
    node.engine.dispose()
    return kept


def run(config: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments), "-c", str(config)])


def back_up(config: Path, name: str = "backup") -> tuple[Path, Path]:
    folder, copy = config.parent.parent / name, config.parent.parent / "usb" / "study-keys"
    copy.parent.mkdir(exist_ok=True)
    done = run(config, "backup", folder, "--keys", copy)
    assert done.exit_code == 0, done.exception
    return folder, copy


def bare(config: Path, name: str = "fresh") -> Path:
    """A node with the configuration and the keys of another, and no data."""
    folder = config.parent.parent / name
    shutil.copytree(config.parent, folder, ignore=shutil.ignore_patterns("node.db*", "objects", "audit", "run"))
    return folder / "radnode.toml"


def content(config: Path, instance: str) -> bytes:
    node = Node(load_settings(config))
    with reading(node.engine) as tx:
        part10 = node.vault.get(get_instance(tx, instance).object_id)
    node.engine.dispose()
    return part10[read_file_meta(part10).offset :]


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def column(config: Path, statement: str) -> list[bytes]:
    with closing(sqlite3.connect(config.parent / "node.db")) as database:
        return [row[0] for row in database.execute(statement)]


def test_backup_is_sealed_private_and_without_any_study_key_and_comes_back_whole(config: Path) -> None:
    images = [image(number, f"1.2.3.{100 + number % 2}") for number in range(6)]
    kept = receive(config, *images)
    wrapped = column(config, "SELECT wrapped FROM study_keys")
    folder, copy = back_up(config)
    everything = bytes_below(folder)
    assert len(wrapped) == 2
    assert not any(secret in everything for secret in (*SECRETS, *wrapped))
    assert modes(path for path in folder.rglob("*") if path.is_file()) == {0o600}
    assert modes([folder, *(path for path in folder.rglob("*") if path.is_dir())]) == {0o700}
    assert modes([copy]) == {0o600}
    assert not any(secret in copy.read_bytes() for secret in SECRETS)
    fresh = bare(config)
    done = run(fresh, "restore", folder, "--keys", copy)
    assert done.exit_code == 0, done.exception
    assert done.output.startswith("restore: ok, 6 objects open, ")
    assert [content(fresh, instance) for instance in kept] == [encoded(dataset) for dataset in images]
    assert run(fresh, "audit", "verify").exit_code == 0
    tail = json.loads(run(fresh, "audit", "tail", "-n", "2", "--json").output.splitlines()[0])
    assert tail["detail"] == {"command": "restore", "count": 6}
    receive(fresh, image(50))  # it goes on
    assert run(fresh, "audit", "verify").exit_code == 0


def test_study_that_is_purged_opens_in_no_backup_taken_before(config: Path) -> None:
    (gone,), (stays,) = receive(config, image(1)), receive(config, image(2, "1.2.3.200"))
    (wrapped,) = column(config, "SELECT wrapped FROM study_keys ORDER BY created LIMIT 1")
    folder, copy = back_up(config)
    purged = run(config, "purge", "--study", "1.2.3.100", "--reason", "consent withdrawn")
    assert purged.exit_code == 0, purged.output
    # Whoever has the backup, the key copy, the keys and the node as it is now, has no key of that study.
    everything = b"".join(map(bytes_below, (folder, copy.parent, config.parent)))
    assert wrapped not in everything
    assert wrapped.hex().encode() not in everything
    with closing(sqlite3.connect(folder / "node.db")) as database:
        (object_id,) = database.execute("SELECT object_id FROM instances WHERE instance = ?", (gone,)).fetchone()
    reader = Node(load_settings(config))
    (segment,) = (folder / "objects").glob(f"{object_id[:12].hex()}.seg")
    target = config.parent / "objects" / segment.name
    target.unlink(missing_ok=True)
    copy_sparse(segment, target)  # its objects are back, and do not open
    with pytest.raises(KeyUnavailable, match="purged"):
        reader.vault.get(object_id)
    reader.engine.dispose()
    fresh = bare(config)
    done = run(fresh, "restore", folder, "--keys", copy)
    assert (done.exit_code, done.exception) == (0, None)
    assert "1 studies were purged after the backup was made" in done.output
    assert content(fresh, stays) == encoded(image(2, "1.2.3.200"))
    assert column(fresh, "SELECT instance FROM instances") == [stays]
    assert column(fresh, "SELECT count(*) FROM doomed_objects") == [0]


def test_key_copy_that_a_purge_cannot_reach_is_said_until_it_is_renewed_or_forgotten(config: Path) -> None:
    receive(config, image(1), image(2, "1.2.3.200"), image(3, "1.2.3.300"))
    _, copy = back_up(config)
    before = copy.read_text()
    copy.parent.rename(copy.parent.with_name("unplugged"))
    purged = run(config, "purge", "--study", "1.2.3.100")
    assert purged.exit_code == 1
    assert "holds study keys as they were" in purged.output
    assert "BAD  key copies" in run(config, "check").output
    copy.parent.with_name("unplugged").rename(copy.parent)
    assert copy.read_text() == before
    assert run(config, "purge").exit_code == 0  # nothing to purge, and the copy is renewed
    assert json.loads(copy.read_text().splitlines()[0])["keys"] == 2
    assert "ok   key copies: 1" in run(config, "check").output
    copy.unlink()
    assert run(config, "purge", "--study", "1.2.3.200").exit_code == 1
    assert run(config, "keys", "forget", copy).exit_code == 0
    assert isinstance(run(config, "keys", "forget", copy).exception, RadnodeError)
    assert run(config, "purge", "--study", "1.2.3.300").exit_code == 0
    assert "ok   key copies: none" in run(config, "check").output


def test_what_a_killed_backup_leaves_of_study_keys_is_gone_with_the_next_purge(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(config, image(1))
    (wrapped,) = column(config, "SELECT wrapped FROM study_keys")
    copy, draft = config.parent.parent / "study-keys", config.parent / "run" / DRAFT
    with monkeypatch.context() as killed:  # between the file and its name, and with the draft still there
        killed.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
        assert run(config, "backup", config.parent.parent / "backup", "--keys", copy).exit_code == 137
    shutil.copyfile(config.parent / "node.db", draft)
    [left] = copy.parent.glob("study-keys*")
    assert base64.b64encode(wrapped) in left.read_bytes()
    assert "BAD  key copies" in run(config, "check").output
    assert run(config, "purge", "--study", "1.2.3.100").exit_code == 0
    assert not draft.exists()
    assert json.loads(copy.read_text())["keys"] == 0
    assert list(copy.parent.glob("study-keys*")) == [copy]


def test_rotation_renews_the_key_copy_and_a_key_that_one_still_needs_is_not_retired(config: Path) -> None:
    kept = receive(config, image(1))
    folder, copy = back_up(config)
    assert run(config, "keys", "rotate").exit_code == 0
    assert run(config, "keys", "retire", "kek-0001").exit_code == 0
    done = run(bare(config), "restore", folder, "--keys", copy)  # an older backup, and the copy of now
    assert (done.exit_code, done.exception) == (0, None)
    copy.rename(copy.with_name("away"))
    rotated = run(config, "keys", "rotate")
    assert rotated.exit_code == 1
    assert "is not there" in rotated.output
    refused = run(config, "keys", "retire", "kek-0002").exception
    assert isinstance(refused, RadnodeError)
    assert "may need kek-0002" in str(refused)
    copy.with_name("away").rename(copy)
    assert run(config, "purge").exit_code == 0
    assert run(config, "keys", "retire", "kek-0002").exit_code == 0
    done = run(bare(config, "again"), "restore", folder, "--keys", copy)
    assert (done.exit_code, done.exception) == (0, None)
    assert content(config, *kept) == encoded(image(1))


def refused(config: Path, folder: Path, copy: Path, words: str) -> None:
    done = run(config, "restore", folder, "--keys", copy)
    assert isinstance(done.exception, RadnodeError), done.output
    assert words in str(done.exception)
    assert "ok" not in done.output


def test_restore_that_is_not_whole_never_says_ok(config: Path) -> None:
    receive(config, image(1))
    folder, copy = back_up(config)
    refused(config, folder, copy, "exists already")
    (segment,) = (folder / "objects").iterdir()
    good = segment.read_bytes()
    segment.write_bytes(good[:600] + bytes([good[600] ^ 1]) + good[601:])
    refused(bare(config, "a"), folder, copy, "1 of 1 restored objects do not open")
    segment.write_bytes(good)
    (trail,) = (folder / "audit").glob("*.jsonl")
    lines = trail.read_bytes()
    trail.write_bytes(lines.replace(b"image_received", b"image_receiveD"))
    refused(bare(config, "b"), folder, copy, "trail does not verify")
    trail.write_bytes(lines)
    manifest = (folder / "backup.json").read_text()
    (folder / "backup.json").unlink()
    refused(bare(config, "c"), folder, copy, "was not finished")
    (folder / "backup.json").write_text(manifest.replace("backup 1", "backup 9"))
    refused(bare(config, "c2"), folder, copy, "another version")
    (folder / "backup.json").write_text(manifest)
    newest = copy.read_text()
    for broken in ("", "{}", newest.splitlines()[0], newest.replace('"keys": 1', '"keys": 2')):
        copy.write_text(broken)
        refused(bare(config, f"d{len(broken)}"), folder, copy, "no key copy")
    copy.write_text(newest.replace('"written": 1', '"written": -1'))
    refused(bare(config, "e"), folder, copy, "older than the backup")


def test_backup_goes_into_a_folder_of_its_own_and_the_key_copy_elsewhere(config: Path) -> None:
    receive(config, image(1))
    folder, copy = back_up(config)
    assert isinstance(run(config, "backup", folder, "--keys", copy).exception, RadnodeError)
    inside = folder.parent / "second"
    assert run(config, "backup", inside, "--keys", inside / "keys").exit_code == 2
    assert not inside.exists()
    assert run(config, "backup", inside, "--keys", copy).exit_code == 0


def test_request_for_commitment_that_is_answered_while_a_backup_is_made_is_forgotten_there(config: Path) -> None:
    receive(config, image(1))
    with closing(sqlite3.connect(config.parent / "node.db")) as database:
        name, gone = "c" * 32, b"\x01" * 16
        database.execute("INSERT INTO commitments VALUES (?, 'CT1', 'x', ?, 1.0)", (name, gone))
        database.execute(
            "INSERT INTO jobs (kind, subject, destination, state, due, created, updated) "
            "VALUES ('commit', ?, 'CT1', 'ready', 1.0, 1.0, 1.0)",
            (name,),
        )
        database.commit()
    folder, _ = back_up(config)
    with closing(sqlite3.connect(folder / "node.db")) as database:
        assert database.execute("SELECT object_id FROM commitments").fetchall() == [(None,)]
        assert database.execute("SELECT count(*) FROM jobs WHERE kind = 'commit'").fetchall() == [(0,)]
