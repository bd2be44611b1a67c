"""kill -9 around the completion of a series: before its job is there, when it is there, in the middle of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.completion_worker import SETTINGS, look, work
from support.crash import Ledger, report_counts, sources
from support.ct import CTSeries
from support.node import wait_for
from support.rooms import Rooms
from support.series_site import SeriesSite, series_site

from radnode.jobs.completion import Completion
from radnode.model import JobKind, JobState

TESTS = Path(__file__).parents[1]
QUIET = 3.0


def killed(folder: Path, where: str, seconds: float) -> None:
    """Run a worker and kill it after some time, or let it kill itself."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "support.completion_worker", str(folder), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        if where != "decision":
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(seconds)
            os.kill(child.pid, signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL


def finish(rooms: Rooms) -> None:
    """Do what the next worker does."""
    rooms.now = time.time() + 10.0
    completion = Completion(rooms.engine, rooms.queue, SETTINGS, rooms.clock)
    for _ in range(10):
        rooms.queue.release("worker")
        look(rooms.engine, rooms.queue, completion)
        completion.decide()
        work(rooms.engine, rooms.queue)
        rooms.now += 5.0
    assert completion.waiting() == []


def assert_every_image_is_in_one_job(rooms: Rooms) -> None:
    with rooms.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT series, generation, count(*) FROM series_images GROUP BY 1, 2").all()
        last = dict(connection.exec_driver_sql("SELECT series, generation FROM series").all())
        kept = connection.exec_driver_sql("SELECT count(*) FROM instances").scalar_one()
    jobs = [row.subject for row in rooms.queue.listing([JobState.DONE]) if row.kind is JobKind.SERIES]
    assert sum(count for _, _, count in rows) == kept
    assert sorted(jobs) == sorted(f"{series}.{generation}" for series, generation, _ in rows)
    assert sorted(jobs) == sorted(f"{series}.{number}" for series, top in last.items() for number in range(1, top + 1))


def test_worker_killed_between_ready_and_job_leaves_a_series_that_waits_and_gets_one_job(tmp_path: Path) -> None:
    killed(tmp_path, "decision", 0.0)
    rooms = Rooms(tmp_path)
    assert {row.kind for row in rooms.queue.listing(list(JobState))} == {JobKind.ANALYSE}
    assert rooms.count("series_images") == 0
    assert rooms.count("series") > 0
    killed(tmp_path, "decision", 0.0)  # and again, by its successor
    finish(rooms)
    assert_every_image_is_in_one_job(rooms)
    rooms.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_worker_killed_at_any_moment_leaves_every_image_in_one_job(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (not a secret)
    rooms = Rooms(tmp_path)
    for _ in range(6):
        killed(tmp_path, "anywhere", chance.uniform(0.0, 0.3))
    finish(rooms)
    assert_every_image_is_in_one_job(rooms)
    rooms.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SeriesSite]:
    with series_site(tmp_path, QUIET, CTSeries(bright=[7])) as site:
        yield site


def test_node_and_worker_killed_again_and_again_give_one_report_on_the_series(site: SeriesSite) -> None:
    node, slices = site.node, site.series.slices(1, 40)
    Ledger(node, slices[:20]).push(60)
    node.kill_role("worker")  # while images wait to be looked at, or the series to be complete
    Ledger(node, slices[20:]).push(60)
    wait_for(lambda: node.query("SELECT 1 FROM series WHERE due IS NOT NULL"), 30, "the series waits")
    node.kill_everything()
    node.start()
    wait_for(lambda: node.query("SELECT 1 FROM jobs WHERE kind = 'series'"), 60, "the job is there")
    node.kill_role("worker")
    node.await_idle(90)
    wait_for(lambda: report_counts(site.pacs) >= 1, 20, "the report is at the PACS")
    [report] = site.pacs.reports()
    assert sources(report) == [item.SOPInstanceUID for item in slices]
    assert node.jobs()["series", "done"] == 1
    wait_for(lambda: node.left()["audit rows not in the trail"] == 0, 20, "the trail is up to date")
    node.assert_sound()
