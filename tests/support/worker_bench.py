"""A worker on real rooms with an analyser that answers what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from radnode.audit.events import Actor
from radnode.detect.analyser import Task
from radnode.detect.worker import Worker
from radnode.jobs.register import JobRow
from radnode.model import Analysis, JobKind, JobState, Reason
from radnode.report.sr import encode_report
from radnode.results import Report
from radnode.rules import Rules
from radnode.settings import DetectSettings, RuleSettings
from support.analyses import NO_FINDING, report
from support.recorder import Recorder
from support.rooms import Rooms, encoded, request_for, small

IMAGE = {"Rows": 1, "Columns": 1, "PixelData": b"\0\0", "BitsAllocated": 16}
Answer = Analysis | Reason | Callable[[], Any]


class FakeAnalyser:
    """Answers by SOP Instance UID; what is not named has no finding."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.batches: list[list[str]] = []

    def task(self, name: str, header: Dataset, part10: bytes, _view_side: int = 0) -> Task:
        return Task(name, header, part10, None)

    def decode(self, tasks: Sequence[Task]) -> list[FakeAnalyser]:
        self.pending = [task for task in tasks if task.pending]
        self.batches.append([str(task.header.SOPInstanceUID) for task in self.pending])
        return [self]

    def run(self) -> None:
        for task in self.pending:
            answer = self.answers.get(str(task.header.SOPInstanceUID), NO_FINDING)
            if callable(answer) and not isinstance(answer, Reason):
                answer = answer()
            if isinstance(answer, Reason):
                task.decline(answer)
            else:
                task.answer(answer)


class WorkerBench:
    """A worker on real rooms."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.rooms = Rooms(folder)
        self.analyser = FakeAnalyser()
        self.log = Recorder()
        self.compose: Callable[[Dataset, Analysis], None] = lambda _header, _analysis: None
        self.worker = Worker(
            self.rooms.stores,
            results=self.rooms.results,
            rules=Rules([RuleSettings(detect=("cxr",), deliver=("pacs",))]),
            analyser=self.analyser,
            compose=self._compose,
            settings=DetectSettings(**settings),
            actor=Actor(user="test"),
            owner="worker:1",
            log=self.log,
        )

    def _compose(self, header: Dataset, analysis: Analysis, received: float, predecessors: Sequence[Dataset]) -> Report:
        self.compose(header, analysis)
        made = report(header, analysis, predecessors=predecessors)
        return Report(made.SOPInstanceUID, encode_report(made))

    def receive(self, *numbers: int) -> list[str]:
        """Keep images and return their pseudonyms."""
        found = []
        for number in numbers:
            dataset = small(number, **IMAGE)
            dataset["PixelData"].VR = "OW"
            found.append(self.rooms.intake.receive(request_for(dataset), encoded(dataset)).instance)
        return found

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        """Return outcome and reason by SOP Instance UID."""
        documents = self.rooms.results.listing(Actor(user="test"))
        return {item["source"]["SOPInstanceUID"]: (item["outcome"], item["reason"]) for item in documents}

    def jobs(self, kind: JobKind = JobKind.ANALYSE) -> list[JobRow]:
        return [row for row in self.rooms.queue.listing(list(JobState)) if row.kind is kind]

    def work(self, steps: int = 20) -> None:
        """Step with time passing, as a role does."""
        for _ in range(steps):
            self.worker.step()
            self.rooms.now += 100
