"""The keeper of the trail: checkpoints to anchors, and the purge of what is past its retention."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.certificates import DAY, resigned

from radnode.audit import events, read
from radnode.audit.events import Actor
from radnode.audit.sequencer import Sequencer
from radnode.audit.tail import Tail
from radnode.audit.verify import Verification, verify
from radnode.configuration import load_settings
from radnode.initialise import initialise
from radnode.node import ORIGIN, Node
from radnode.settings import AuditSettings, DetectionSettings
from radnode.trail import Keeper

SEVEN_YEARS = timedelta(days=7 * 366)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return initialise(tmp_path_factory.mktemp("keeper") / "node", 2762, None)


class Site:
    """A node of its own database and trail, with one anchor."""

    def __init__(self, config: Path, folder: Path) -> None:
        self.anchor = folder / "anchor"
        settings = load_settings(config)
        keys = settings.keys.model_copy(update={"directory": settings.path(settings.keys.directory)})
        audit = AuditSettings(anchor=(str(self.anchor),), retention_days=2192)
        (folder / "node").mkdir()
        self.node = Node(settings.model_copy(update={"data_dir": folder / "node", "keys": keys, "audit": audit}))

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.node.record(events.ALERT, self.node.actor(), rule="test")

    def names(self) -> list[str]:
        with self.node.engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT entry FROM audit_entries").scalars()
            return [row.split('"event":"')[1].split('"')[0].split()[1] for row in rows]

    def verified(self) -> Verification:
        node = self.node
        return verify(node.audit_folder, node.key_folder / "audit-sign.pub", node.database_path, [self.anchor])


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Iterator[Site]:
    site = Site(made, tmp_path)
    yield site
    site.node.engine.dispose()


def test_newest_checkpoint_is_put_into_the_anchor_once_and_verifies(site: Site) -> None:
    site.anchor.mkdir()
    with site.node.sequencer() as trail:
        keeper = Keeper(site.node, trail)
        for _ in range(2):
            site.add()
            trail.finish()
            keeper.anchor()
            keeper.anchor()
    [notes] = site.anchor.glob("*.notes")
    assert notes.read_text().split("\n\n") == next(site.node.audit_folder.glob("checkpoints/*")).read_text().split(
        "\n\n"
    )
    assert notes.stat().st_mode & 0o777 == 0o600
    assert site.verified().ok


def test_trail_cut_back_with_its_database_differs_from_the_anchor(site: Site) -> None:
    site.anchor.mkdir()
    with site.node.sequencer() as trail:
        keeper = Keeper(site.node, trail)
        site.add(3)
        trail.finish()
    [segment] = site.node.audit_folder.glob("trail-*")
    [notes] = site.node.audit_folder.glob("checkpoints/*")
    before = segment.read_bytes(), notes.read_bytes()
    with site.node.sequencer() as trail:
        keeper = Keeper(site.node, trail)
        site.add(2)
        trail.finish()
        keeper.anchor()
    segment.write_bytes(before[0])
    notes.write_bytes(before[1])
    with site.node.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit_entries WHERE seq > 3")
    found = site.verified()
    assert (found.ok, found.first_bad) == (False, 4)


def test_anchor_that_is_away_is_alerted_once_and_gets_the_newest_when_it_is_back(site: Site) -> None:
    with site.node.sequencer() as trail:
        keeper = Keeper(site.node, trail)
        for _ in range(3):
            site.add()
            trail.finish()
            keeper.anchor()
        assert site.names().count("alert") == 3 + 1
        assert not site.anchor.exists()
        site.anchor.mkdir()
        trail.finish()
        keeper.anchor()
    assert site.verified().ok
    assert list(site.anchor.iterdir())


def test_purge_is_in_the_trail_before_it_happens_and_leaves_what_is_young(site: Site) -> None:
    site.anchor.mkdir()
    with site.node.sequencer() as trail:
        site.add(4)
        trail.finish()
        keeper = Keeper(site.node, trail)
        assert keeper.purge(datetime.now(UTC) + SEVEN_YEARS) == 0  # the newest segment stays
        (segment,) = site.node.audit_folder.glob("trail-*")
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join(lines[:2]))
        (segment.parent / "trail-000000000003.jsonl").write_bytes(b"".join(lines[2:]))
        assert keeper.purge(datetime.now(UTC)) == 0
        assert keeper.purge(datetime.now(UTC) + SEVEN_YEARS) == 2
    assert site.names() == ["alert", "alert", "trail_purged"]
    assert not segment.exists()


def test_trail_that_is_to_be_kept_for_ever_is_never_purged(site: Site) -> None:
    site.node.settings = site.node.settings.model_copy(update={"audit": AuditSettings(retention_days=0)})
    with site.node.sequencer() as trail:
        assert Keeper(site.node, trail).purge(datetime.now(UTC) + SEVEN_YEARS) == 0


def test_repeated_refusals_and_a_certificate_that_ends_become_one_alert_each(site: Site, made: Path) -> None:
    few = DetectionSettings(refusals=3, certificate_days=100_000)
    site.node.settings = site.node.settings.model_copy(update={"detection": few})
    shutil.copytree(made.parent / "pki", site.node.settings.data_dir / "pki")
    site.anchor.mkdir()
    for refusals in (6, 0):  # and a start on the same day, which tells of no certificate again
        with site.node.sequencer() as trail:
            keeper = Keeper(site.node, trail)
            keeper.look()
            for _ in range(refusals):
                site.node.record(events.PEER_REFUSED, Actor(address="192.0.2.66"), rule="tls_plain_tcp")
                trail.finish()
                keeper.look()
            trail.finish()
    alerts = [entry for entry in read.entries(site.node.audit_folder) if entry["event"] == "110113 alert"]
    about = [(it["detail"]["rule"], it["actor"]["address"] or it["detail"]["setting"]) for it in alerts]
    ends = [("certificate_ends", f"tls.{name}") for name in ("certificate", "ca")]
    assert about == [*ends, ("repeated_refusals", "192.0.2.66")]
    assert all(800 < it["detail"]["count"] < 100_000 for it in alerts[:2])


def test_end_of_a_certificate_is_not_watched_where_nobody_wants_it(site: Site, made: Path) -> None:
    none = DetectionSettings(certificate_days=0)
    site.node.settings = site.node.settings.model_copy(update={"detection": none})
    pki = shutil.copytree(made.parent / "pki", site.node.settings.data_dir / "pki")
    resigned(pki, pki / "server.crt", -2 * DAY, -DAY)  # it has ended
    site.anchor.mkdir()
    with site.node.sequencer() as trail:
        Keeper(site.node, trail).look()
    assert site.names() == []


def test_tail_follows_over_segments_and_misses_nothing(site: Site) -> None:
    tail, got = Tail(site.node.audit_folder, 0), []
    sequencer = Sequencer(site.node.engine, site.node.audit_folder, site.node.signer, ORIGIN, segment_bytes=1500)
    with sequencer as trail:
        for _ in range(20):
            site.add(2)
            while entries := tail.read(3):
                got += [entry["seq"] for entry in entries]
                tail.done(entries)
            trail.step()
    while True:
        before = len(got)
        entries = tail.read(3)
        got += [entry["seq"] for entry in entries]
        tail.done(entries)
        if len(got) == before == 40:
            break
    assert got == list(range(1, 41))
    assert len(list(site.node.audit_folder.glob("trail-*"))) > 5
