"""Rows 9 to 16 of docs/life-of-an-image.md: kill -9 of everything while an image is worked on, and it is mended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import films
from support.crash import report_counts
from support.node import wait_for
from support.steps import ARRIVING, WORKED_ON, Site, site

from radnode.failpoints import PLACES


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A whole node."""
    yield from site(tmp_path_factory.mktemp("whole"), "all")


@pytest.mark.parametrize("place", WORKED_ON)
def test_kill_while_an_image_is_worked_on_leaves_what_its_row_says(whole: Site, place: str) -> None:
    leased, orphans, results = WORKED_ON[place]
    whole.node.await_idle(60)
    at_pacs = report_counts(whole.pacs)
    crash = whole.crash(place, films.fresh(films.NORMAL))
    assert crash.promised
    assert [kind for kind in ("analyse", "deliver") if crash.left.get(f"{kind} leased")] == ([leased] if leased else [])
    assert crash.left["orphans"] == orphans
    assert crash.new("results") == results
    assert crash.at_pacs == at_pacs + (place in {"report-sent", "delivery-uncommitted", "delivery-committed"})
    assert crash.repaired["leases"] == {"analyse": 1, "deliver": 2, None: 0}[leased]  # report and picture go together
    assert (crash.repaired["stretches"] > 0) == (orphans > 0)


@pytest.mark.parametrize("place", ["trail-appended", "trail-signed"])
def test_kill_of_the_sequencer_leaves_a_trail_that_goes_on(whole: Site, place: str) -> None:
    whole.node.await_idle(60)
    crash = whole.crash(place, films.fresh(films.NORMAL))
    assert (crash.left["checkpoints behind"] == 0) == (place == "trail-signed")
    assert crash.repaired["entries"] == crash.left["audit rows not in the trail"]


def test_last_line_of_the_trail_that_was_cut_short_is_counted_and_written_anew(whole: Site) -> None:
    whole.node.await_idle(60)
    wait_for(lambda: whole.node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    whole.node.kill_everything()
    [*_, newest] = sorted((whole.node.folder / "audit").glob("*.jsonl"))
    whole_lines = newest.read_bytes()
    newest.write_bytes(whole_lines + b'{"seq":99999,"timest')  # what a power cut leaves of an append
    assert whole.restart()["torn_bytes"] == 20
    wait_for(lambda: whole.node.events("ready", "sequencer"), 20, "the sequencer runs")
    wait_for(lambda: whole.node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    assert newest.read_bytes().startswith(whole_lines)


def test_kill_of_a_start_that_repairs_leaves_the_rest_to_the_next(whole: Site) -> None:
    whole.node.await_idle(60)
    whole.failpoints.arm("result-sealed", "STOP")
    pusher = whole.push(films.fresh(films.NORMAL))
    wait_for(lambda: whole.failpoints.hit("result-sealed"), 30, "the worker has a result")
    whole.node.kill_everything()
    left = whole.left()
    whole.failpoints.arm("start-repairing")
    whole.node.start(wait=())
    assert whole.node.await_end(30) < 0
    halfway, repaired = whole.left(), whole.restart()
    pusher.join()
    assert (left["analyse leased"], left["orphans"]) == (1, 3)
    assert (halfway.get("analyse leased", 0), halfway["orphans"]) == (0, 3)
    assert (repaired["leases"], repaired["stretches"] > 0) == (0, True)


def test_every_image_that_was_worked_on_between_the_kills_has_one_report_in_the_end(whole: Site) -> None:
    whole.settle()


def test_every_failpoint_of_an_image_and_of_a_start_is_in_one_of_these_tests() -> None:
    tested = {*ARRIVING, *WORKED_ON, "duplicate-compared", "trail-appended", "trail-signed", "start-repairing"}
    assert tested == {place for place, step in PLACES.items() if step.isdigit() or step == "start"}
