"""The completion of series against arrivals in any order, examined late, with restarts, lies and jumping clocks.

Whatever happens, every image ends in exactly one generation, one job of a series lives at a time, and as long as the
clock is sane no series is complete before its time.
"""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from radnode.jobs import schema
from radnode.jobs.completion import BUSY_SECONDS, Completion
from radnode.jobs.database import create_tables, open_database, transaction
from radnode.jobs.index import InstanceRow, add_instance
from radnode.jobs.queue import Queue
from radnode.jobs.series import find_series, images_of
from radnode.model import JobKind, JobState
from radnode.settings import CompletionSettings

QUIET, FORCE = 10.0, 60.0
SERIES = st.sampled_from([("series-a", "study-1"), ("series-b", "study-1"), ("series-a", "study-2")])


@dataclass
class Expected:
    """What the model knows of one series."""

    kept: int = 0
    in_jobs: int = 0
    announced: int | None = None
    last: float = 0.0  # when an image came last
    first: float = 0.0  # since when one waits
    generations: list[set[str]] = field(default_factory=list)


class CompletionMachine(RuleBasedStateMachine):
    """Everything that listeners, workers, an operator and a clock can do to the completion of series."""

    configured = 0

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now, self.sane = 1_000_000.0, True
        self.unexamined: list[tuple[InstanceRow, int | None]] = []
        self.expected: dict[tuple[str, str], Expected] = {}
        self.open()

    def open(self) -> None:
        self.engine = open_database(Path(self.folder.name) / "node.db")
        create_tables(self.engine, schema.metadata)
        self.queue = Queue(self.engine, lambda: self.now)
        found = CompletionSettings(quiet_seconds=QUIET, force_seconds=FORCE, expected_instances=self.configured)
        self.completion = Completion(self.engine, self.queue, found, lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.settle()
            self.engine.dispose()
            self.folder.cleanup()

    @rule(key=SERIES, count=st.integers(1, 4), announced=st.sampled_from([None, None, 2, 3, 5, 400]))
    def arrive(self, key: tuple[str, str], count: int, announced: int | None) -> None:
        model = self.expected.setdefault(key, Expected())
        for _ in range(count):
            names = {"instance": secrets.token_hex(16), "series": key[0], "study": key[1], "patient": "p"}
            row = InstanceRow(**names, object_id=secrets.token_bytes(16), size=1, peer="CT", received=self.now)
            with transaction(self.engine) as tx:
                assert add_instance(tx, row)
            self.unexamined.append((row, announced))
            if model.kept == model.in_jobs:
                model.first = self.now
            model.kept += 1
            model.last = self.now

    @rule(data=st.data())
    def examine(self, data: st.DataObject) -> None:
        if self.unexamined:
            row, announced = self.unexamined.pop(data.draw(st.integers(0, len(self.unexamined) - 1)))
            with transaction(self.engine) as tx:
                self.completion.touch(tx, row, announced)
            model = self.expected[row.series, row.study]
            model.announced = max(filter(None, (model.announced, announced)), default=None)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, QUIET, 2 * QUIET, FORCE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([-3600.0, -QUIET, 3600.0]))
    def jump(self, seconds: float) -> None:
        self.now += seconds
        self.sane = False

    @rule()
    def restart(self) -> None:
        self.engine.dispose()
        self.open()

    @rule()
    def decide(self) -> None:
        for done in self.completion.decide():
            model = self.expected[done.series, done.study]
            assert model.kept > model.in_jobs  # there was something new
            quiet, forced = self.now - model.last >= QUIET, self.now - model.first >= FORCE
            announced = self.configured or model.announced
            assert not self.sane or quiet or forced or model.kept == announced
            row = self.row(done.series, done.generation)
            assert row is not None
            with self.engine.connect() as connection:
                images = {image.instance for image in images_of(connection, row)}
            assert len(images) == model.kept == done.images
            assert not model.generations or model.generations[-1] < images
            model.generations.append(images)
            model.in_jobs = model.kept

    def row(self, series: str, generation: int) -> object:
        with self.engine.connect() as connection:
            return find_series(connection, f"{series}.{generation}")

    @rule(dies=st.booleans())
    def work(self, dies: bool) -> None:
        with transaction(self.engine) as tx:  # what the queue makes of a clock that jumps is its own test
            tx.exec_driver_sql("UPDATE jobs SET due = 0")
        for lease in self.queue.lease(JobKind.SERIES, "worker:1", 5.0):
            with transaction(self.engine) as tx:
                if dies:
                    self.queue.bury(tx, lease, "word")
                else:
                    self.queue.finish(tx, lease)

    @invariant()
    def one_job_of_a_series_lives(self) -> None:
        if hasattr(self, "engine"):
            live = [row.subject for row in self.queue.listing([JobState.READY, JobState.LEASED])]
            assert len(live) == len(set(live))
            with self.engine.connect() as connection:
                current = {f"{row.series}.{row.generation}" for row in connection.execute(select(schema.series))}
            assert set(live) <= current

    def settle(self) -> None:
        """Examine and work through everything while time passes as it should; nothing is left out."""
        while self.unexamined:
            row, announced = self.unexamined.pop()
            with transaction(self.engine) as tx:
                self.completion.touch(tx, row, announced)
            model = self.expected[row.series, row.study]
            model.announced = max(filter(None, (model.announced, announced)), default=None)
        deadline = self.now + 2 * QUIET + 4 * BUSY_SECONDS
        while self.now < deadline:
            self.decide()
            self.work(dies=False)
            self.now += 1.0
        assert self.completion.waiting() == []
        assert self.completion.next_due() is None
        for model in self.expected.values():
            assert model.in_jobs == model.kept
        assert len(self.queue.listing(list(JobState))) == sum(
            len(model.generations) for model in self.expected.values()
        )


class ConfiguredMachine(CompletionMachine):
    """The same where the configuration says how many images a series has."""

    configured = 3


for _machine in (CompletionMachine, ConfiguredMachine):
    _machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestAnnounced = CompletionMachine.TestCase
TestConfigured = ConfiguredMachine.TestCase
