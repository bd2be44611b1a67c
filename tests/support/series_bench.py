"""The worker with both of its parts on real rooms: real detectors, real decoding, a clock that the test sets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select
from torch import nn

from radnode.audit.events import Actor
from radnode.detect.analyser import Analyser
from radnode.detect.catalogue import Catalogue
from radnode.detect.decoding import DecoderChild
from radnode.detect.series_worker import SeriesTouch, SeriesWorker
from radnode.detect.shadows import Shadows
from radnode.detect.worker import Worker
from radnode.jobs.completion import Completion
from radnode.jobs.register import JobRow
from radnode.jobs.schema import results
from radnode.model import JobKind, JobState
from radnode.node import Node
from radnode.rules import Rules
from radnode.settings import CompletionSettings, DetectSettings, RuleSettings, Settings
from support import toys
from support.recorder import Recorder
from support.rooms import Rooms, encoded, request_for

QUIET, FORCE = 10.0, 100.0
RULE = RuleSettings(match={"Modality": "CT"}, detect=("toy-bright",), deliver=("pacs",))


class SeriesBench:
    """A node's worker without processes; `refused` holds why packages did not load."""

    def __init__(
        self,
        folder: Path,
        module: nn.Module | None = None,
        rules: tuple[RuleSettings, ...] = (RULE,),
        detect: DetectSettings | None = None,
        **completion: float,
    ) -> None:
        self.rooms = Rooms(folder)
        self.models = folder / "models"
        if module is not None and not self.models.exists():
            toys.install_series(self.models, "toy-bright", module)
        self.log = Recorder()
        self.refused: list[str] = []
        self.decoder = DecoderChild(20.0)
        self.analyser = Analyser(
            Catalogue(self.models, self.rooms.engine),
            self.decoder,
            device="cpu",
            threads=1,
            refused=lambda _name, why: self.refused.append(why),
        )
        found = CompletionSettings(**{"quiet_seconds": QUIET, "force_seconds": FORCE, **completion})  # type: ignore[arg-type]
        self.completion = Completion(self.rooms.engine, self.rooms.queue, found, self.rooms.clock)
        parts: dict[str, Any] = {
            "results": self.rooms.results,
            "rules": Rules(rules),
            "analyser": self.analyser,
            "settings": detect or DetectSettings(),
            "actor": Actor(user="test"),
            "owner": "worker:1",
            "log": self.log,
            "shadows": Shadows(self.rooms.stores, self.analyser, Actor(user="test"), self.log, 20.0),
        }
        node, touch = Node(Settings()), SeriesTouch(self.analyser, self.completion)
        self.worker = Worker(self.rooms.stores, compose=node.compose, whole_series=touch, **parts)
        self.series = SeriesWorker(
            self.rooms.stores,
            compose=node.compose_series,
            completion=self.completion,
            stopping=lambda: False,
            **parts,
        )

    def receive(self, *datasets: Dataset) -> list[str]:
        """Keep images and return their pseudonyms."""
        return [
            self.rooms.intake.receive(request_for(dataset, ExplicitVRLittleEndian), encoded(dataset)).instance
            for dataset in datasets
        ]

    def look(self) -> int:
        """Work through all images that wait; return how many there were."""
        done = 0
        while count := self.worker.step():
            done += count
        return done

    def work(self, seconds: float = 0.0) -> None:
        """Let time pass in steps of a second, as a role does, and do all there is to do."""
        for _ in range(int(seconds) + 1):
            while self.worker.step() + self.series.step():
                pass
            self.rooms.now += 1.0

    def jobs(self, kind: JobKind = JobKind.SERIES) -> list[JobRow]:
        """Return the jobs of a kind, in their order."""
        return [row for row in self.rooms.queue.listing(list(JobState)) if row.kind is kind]

    def documents(self) -> list[dict[str, Any]]:
        """Return the results, oldest first."""
        return list(reversed(self.rooms.results.listing(Actor(user="test"))))

    def reports(self) -> list[Dataset]:
        """Return the reports, oldest first."""
        with self.rooms.engine.connect() as connection:
            found = connection.scalars(select(results.c.report_id).order_by(results.c.created)).all()
        return [pydicom.dcmread(io.BytesIO(self.rooms.vault.get(item))) for item in found]

    def close(self) -> None:
        """End the decoding process and close the database."""
        self.analyser.close()
        self.rooms.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
