"""Purging the trail: whole segments past their retention, a signed stub, and verification that goes on behind it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, insert

from radnode.audit import read, retention
from radnode.audit.checkpoint import Signer
from radnode.audit.log import audit_entries, metadata
from radnode.audit.sequencer import Sequencer
from radnode.audit.verify import Verification, verify
from radnode.errors import AuditError, NotFoundError

SIGNER = Signer.generate("radnode.example/audit")
FIRST_DAY = datetime(2020, 1, 1, 12, tzinfo=UTC)
PER_DAY, DAYS = 5, 6


class Site:
    """A trail of PER_DAY entries on each of DAYS days, and its database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "audit"
        self.key = folder / "audit.pub"
        self.database = folder / "node.db"
        self.key.write_text(str(SIGNER.verifier))
        self.engine: Engine = create_engine(f"sqlite:///{self.database}")
        metadata.create_all(self.engine)
        with self.sequencer() as sequencer:
            for day in range(DAYS):
                self.add(FIRST_DAY + timedelta(days=day))
                sequencer.step()
                sequencer.checkpoint()

    def add(self, moment: datetime) -> None:
        stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        row = {"entry": json.dumps({"timestamp": stamp, "event": "110113 alert"}, separators=(",", ":"))}
        with self.engine.begin() as connection:
            connection.execute(insert(audit_entries), [row] * PER_DAY)

    def sequencer(self) -> Sequencer:
        return Sequencer(self.engine, self.folder, SIGNER, SIGNER.verifier.name)

    def due(self, day: int, keep_from: int | None = None) -> retention.Stub | None:
        return retention.due(self.folder, SIGNER.verifier, FIRST_DAY + timedelta(days=day, hours=-1), keep_from)

    def purge(self, day: int) -> retention.Stub:
        """Purge everything before a day."""
        stub = self.due(day)
        assert stub is not None
        retention.purge(self.engine, self.folder, SIGNER, stub)
        return stub

    def rows(self) -> list[int]:
        with self.engine.connect() as connection:
            return [row.seq for row in connection.execute(audit_entries.select())]

    def verified(self, *, with_database: bool = True) -> Verification:
        return verify(self.folder, self.key, self.database if with_database else None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.engine.dispose()


def test_each_day_has_a_segment_of_its_own(site: Site) -> None:
    names = sorted(path.name for path in site.folder.glob("trail-*"))
    assert names == [f"trail-{1 + PER_DAY * day:012d}.jsonl" for day in range(DAYS)]
    assert site.verified().ok


def test_an_earlier_day_than_that_of_the_last_entry_begins_no_segment(site: Site) -> None:
    with site.sequencer():
        site.add(FIRST_DAY)
    assert len(list(site.folder.glob("trail-*"))) == DAYS


def test_what_is_past_its_retention_goes_and_the_rest_verifies_from_the_stub(site: Site) -> None:
    stub = site.purge(3)
    assert stub.size == 3 * PER_DAY
    assert len(list(site.folder.glob("trail-*"))) == DAYS - 3
    assert site.rows() == list(range(3 * PER_DAY + 1, DAYS * PER_DAY + 1))
    total = DAYS * PER_DAY
    for with_database in (True, False):
        found = site.verified(with_database=with_database)
        assert (found.ok, found.entries, found.signed, found.purged) == (True, total, total, stub.size), found.problem


def test_trail_goes_on_and_is_purged_again(site: Site) -> None:
    site.purge(2)
    with site.sequencer() as sequencer:
        assert sequencer.size == DAYS * PER_DAY
        site.add(FIRST_DAY + timedelta(days=DAYS))
    assert site.purge(5).size == 5 * PER_DAY
    with site.sequencer():
        site.add(FIRST_DAY + timedelta(days=DAYS))
    found = site.verified()
    assert (found.ok, found.entries, found.purged) == (True, (DAYS + 2) * PER_DAY, 5 * PER_DAY), found.problem


def test_newest_segment_and_what_somebody_still_needs_stay(site: Site) -> None:
    stub = site.due(1000)
    assert stub is not None
    assert stub.size == (DAYS - 1) * PER_DAY
    kept = site.due(1000, keep_from=2 * PER_DAY)
    assert kept is not None
    assert kept.size == PER_DAY
    assert site.due(1000, keep_from=1) is None
    assert site.due(0) is None


def test_segment_with_one_younger_entry_stays(site: Site) -> None:
    assert site.due(1) == site.due(2, keep_from=PER_DAY + 1)
    assert retention.due(site.folder, SIGNER.verifier, FIRST_DAY) is None  # its own entries are not older than that


def test_purged_entry_is_not_there_to_be_read(site: Site) -> None:
    site.purge(2)
    with pytest.raises(NotFoundError):
        read.entry(site.folder, 1)
    assert read.entry(site.folder, 2 * PER_DAY + 1)["seq"] == 2 * PER_DAY + 1


@pytest.mark.parametrize("left", ["segment", "rows", "both"])
def test_what_a_crash_leaves_of_the_purged_is_passed_over_and_removed_at_the_next_start(site: Site, left: str) -> None:
    segments = {path.name: path.read_bytes() for path in site.folder.glob("trail-*")}
    stub = site.purge(3)
    if left != "rows":
        name = sorted(segments)[2]  # the last of those that went
        (site.folder / name).write_bytes(segments[name])
    if left != "segment":
        with site.engine.begin() as connection:
            connection.execute(insert(audit_entries), [{"seq": stub.size, "entry": "{}"}])
    assert site.verified().ok
    with site.sequencer():
        pass
    assert site.rows()[0] == stub.size + 1
    assert len(list(site.folder.glob("trail-*"))) == DAYS - 3


def _remove_stub(site: Site) -> int:
    (site.folder / retention.STUB).unlink()
    return 1


def _remove_one_more(site: Site) -> int:
    sorted(site.folder.glob("trail-*"))[0].unlink()
    return 3 * PER_DAY + 1


def _put_old_stub_back(site: Site) -> int:
    (site.folder / retention.STUB).write_bytes((site.folder.parent / "old.note").read_bytes())
    return PER_DAY + 1


def _edit_first(site: Site) -> int:
    path = sorted(site.folder.glob("trail-*"))[0]
    path.write_bytes(path.read_bytes().replace(b"alert", b"alarm", 1))
    return 3 * PER_DAY + 1


def _sign_with_another_key(site: Site) -> int:
    note = (site.folder / retention.STUB).read_text()
    text = note.partition("\n\n")[0] + "\n"
    (site.folder / retention.STUB).write_text(Signer.generate(SIGNER.verifier.name).sign(text))
    return 1


def _checkpoint_as_stub(site: Site) -> int:
    """An old checkpoint is signed too, over as many entries."""
    notes = (site.folder.parent / "notes").read_text().split("\n\n")
    (site.folder / retention.STUB).write_text(f"{notes[4]}\n\n{notes[5]}\n")
    return 1


@pytest.mark.parametrize(
    "tamper",
    [_remove_stub, _remove_one_more, _put_old_stub_back, _edit_first, _sign_with_another_key, _checkpoint_as_stub],
)
def test_tampering_with_stub_or_what_follows_it_is_found(site: Site, tamper, tmp_path: Path) -> None:
    [notes] = site.folder.glob("checkpoints/*")
    shutil.copy(notes, tmp_path / "notes")
    site.purge(1)
    shutil.copy(site.folder / retention.STUB, tmp_path / "old.note")
    site.purge(3)
    first_bad = tamper(site)
    found = site.verified(with_database=False)
    assert (found.ok, found.first_bad) == (False, first_bad), found.problem


def test_damaged_stub_stops_the_sequencer(site: Site) -> None:
    site.purge(2)
    path = site.folder / retention.STUB
    path.write_text(path.read_text().replace("last ", "lost "))
    with pytest.raises(AuditError):
        site.sequencer().acquire()


def test_broken_trail_is_not_purged(site: Site) -> None:
    path = sorted(site.folder.glob("trail-*"))[1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(AuditError, match="is broken at"):
        site.due(4)
