"""Shadows: a version beside the active one sees the same images; what it says is sealed and kept, and goes nowhere.

It looks after the results of the active version were committed, so that it delays and harms none of them. What it says
is lost where this process ends in between; nobody waits for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.detect.analyser import Analyser, Loaded, LoadedSeries, declined
from radnode.detect.gate import check
from radnode.detect.pixels import PixelImage
from radnode.detect.tries import milliseconds_since
from radnode.errors import DetectionError, PackageError, RadnodeError
from radnode.jobs.database import transaction
from radnode.jobs.index import InstanceRow, find_instance
from radnode.jobs.shadows import ShadowRow, add_shadow_result
from radnode.model import Analysis
from radnode.observe import describe
from radnode.results import analysis_document
from radnode.storage.sealing import Kind
from radnode.stores import Stores


@dataclass(frozen=True, slots=True)
class Seen:
    """One image, or the first image of a series, and what the active version said about it."""

    instance: InstanceRow
    header: Dataset
    analysis: Analysis


class Shadows:
    """Runs the shadows of one worker; `seconds` is how long one batch, or one series, may take."""

    def __init__(self, stores: Stores, analyser: Analyser, actor: Actor, log: Any, seconds: float) -> None:
        self._stores = stores
        self._analyser = analyser
        self._actor = actor
        self._log = log
        self._seconds = seconds

    def look(self, name: str, seen: Sequence[Seen], images: Sequence[PixelImage]) -> None:
        """Show images that a detector looked at to its shadow, if it has one, and keep what that says."""
        shadow = self._analyser.shadow(name)
        if isinstance(shadow, Loaded):
            self._run(name, shadow, seen, lambda: _answers(name, shadow, seen, images))

    def look_at_series(
        self, name: str, seen: Seen, detect: Callable[[LoadedSeries], Analysis | DetectionError]
    ) -> None:
        """Have `detect` show a series to the shadow of a detector, if it has one, and keep what that says."""
        shadow = self._analyser.shadow(name)
        if isinstance(shadow, LoadedSeries):
            self._run(name, shadow, [seen], lambda: [_answer(name, shadow, lambda: detect(shadow))])

    def _run(
        self, name: str, shadow: Loaded | LoadedSeries, seen: Sequence[Seen], answers: Callable[[], list[Analysis]]
    ) -> None:
        began, version = time.monotonic(), shadow.detector.identity.version
        try:
            with self._analyser.watching(shadow.path, self._seconds):
                said = answers()
            self._keep(seen, said)
        except PackageError:  # it hung not long ago: it is left alone for a while
            return
        except RadnodeError as error:
            self._log.error("shadow_failed", model=f"{name} {version}", count=len(seen), **describe(error))
        else:
            passed = milliseconds_since(began)
            self._log.info("shadow_analysed", model=f"{name} {version}", count=len(seen), duration_ms=passed)

    def _keep(self, seen: Sequence[Seen], said: Sequence[Analysis]) -> None:
        """Keep what a shadow said about images; of those that were purged meanwhile nothing."""
        put, sealed = self._stores.vault.put, list[bytes]()
        kept: set[bytes] = set()
        try:
            for item, analysis in zip(seen, said, strict=True):
                document = {"shadow": True, **analysis_document(analysis), "beside": analysis_document(item.analysis)}
                sealed.append(put(item.instance.study, Kind.RESULT, json.dumps(document).encode()))
            with transaction(self._stores.engine) as tx:
                for item, analysis, object_id in zip(seen, said, sealed, strict=True):
                    model, about = f"{analysis.model.name} {analysis.model.version}", item.instance
                    row = ShadowRow(about.instance, model, about.study, object_id, self._stores.clock())
                    if find_instance(tx, about.instance) is not None and add_shadow_result(tx, row):
                        kept.add(object_id)
                        self._stores.audit.record(tx, self._record(item, analysis, model))
        except BaseException:
            kept.clear()
            raise
        finally:
            for object_id in sealed:
                if object_id not in kept:
                    self._stores.vault.discard(object_id)

    def _record(self, item: Seen, analysis: Analysis, model: str) -> AuditRecord:
        about = item.instance
        return AuditRecord(
            events.IMAGE_ANALYSED,
            self._actor,
            model=model,
            patient=about.patient,
            study=about.study,
            instance=about.instance,
            detail={"command": "shadow", "outcome": analysis.outcome.value},
        )


def _answers(name: str, shadow: Loaded, seen: Sequence[Seen], images: Sequence[PixelImage]) -> list[Analysis]:
    """Return what a detector says about images, or why it does not look at one."""
    answers: list[Analysis | None] = []
    for item in seen:
        try:
            check(item.header, shadow.accepts)
        except DetectionError as error:
            answers.append(declined(name, shadow, error.reason))
        else:
            answers.append(None)
    shown = [image for image, answer in zip(images, answers, strict=True) if answer is None]
    said = iter(shadow.detector.detect(shown))
    return [_answer(name, shadow, lambda: next(said)) if answer is None else answer for answer in answers]


def _answer(name: str, shadow: Loaded | LoadedSeries, ask: Callable[[], Analysis | DetectionError]) -> Analysis:
    """Return what a detector says; a DetectionError as an analysis without a result."""
    try:
        said = ask()
    except DetectionError as error:
        said = error
    return declined(name, shadow, said.reason) if isinstance(said, DetectionError) else said
