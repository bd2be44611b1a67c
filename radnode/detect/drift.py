"""Drift: whether the scores of a model are still those of its card. Without torch.

The measure is the population stability index over the ten parts into which the deciles of the card divide the scores:
the sum of (share - 0.1) x ln(share / 0.1). By custom, under 0.1 nothing has changed, over 0.25 much has.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from radnode.detect.catalogue import Catalogue
from radnode.detect.manifest import Manifest
from radnode.detect.package import load_package, load_trusted
from radnode.jobs.database import reading
from radnode.jobs.scores import DAY_SECONDS, score_histogram, score_of

if TYPE_CHECKING:
    from radnode.detect.analyser import Analyser

FEWEST = 100  # images, before anything is said
CHANGED, CHANGING = 0.25, 0.1
LOOK_DAYS = 7.0
LOOK_SECONDS = 3600.0  # after the start, the first look of a worker
_LEAST = 0.5  # how often a part counts at least, so that an empty one has a logarithm


@dataclass(frozen=True, slots=True)
class Drift:
    """The scores of one model over some days.

    `shares` are the shares of its images in each tenth of the card's, `index` their stability index; both are None
    where the manifest states no deciles, `index` also under FEWEST images. `state` is stable, changing, changed, or
    unknown.
    """

    name: str
    version: str
    days: float
    images: int
    median: float | None
    shares: tuple[float, ...] | None
    index: float | None

    @property
    def state(self) -> str:
        """What the index means."""
        if self.index is None:
            return "unknown"
        return "changed" if self.index > CHANGED else "changing" if self.index > CHANGING else "stable"


def drift(tx: Connection, manifest: Manifest, days: float, now: float) -> Drift:
    """Return the drift of the scores that a model gave in the last days, by whole days of UTC."""
    name, version = manifest.name, manifest.version
    counts = score_histogram(tx, f"{name} {version}", now - days * DAY_SECONDS)
    return drift_of(name, version, days, counts, manifest.output.deciles)


def drifts(catalogue: Catalogue, engine: Engine, names: Iterable[str], days: float, now: float) -> list[Drift]:
    """Return the drift of the active versions of some models; arguments as of `drift`.

    Raises:
        NotFoundError: of one of them no version is active.
        PackageError: the package of one cannot be used.
    """
    trusted = load_trusted(catalogue.folder)
    manifests = [load_package(catalogue.active(name), trusted).manifest for name in names]
    with reading(engine) as tx:
        return [drift(tx, manifest, days, now) for manifest in manifests]


def drift_of(name: str, version: str, days: float, counts: Mapping[int, int], deciles: tuple[float, ...]) -> Drift:
    """Return the drift of some counts by bin from nine rising deciles, or from none."""
    images = sum(counts.values())
    if not deciles:
        return Drift(name, version, days, images, _median(counts), None, None)
    parts = [0] * (len(deciles) + 1)
    for number, count in counts.items():
        parts[bisect_right(deciles, score_of(number))] += count
    shares = tuple(part / images for part in parts) if images else None
    index = None if images < FEWEST else sum(map(_term, parts, [images / len(parts)] * len(parts))) / images
    return Drift(name, version, days, images, _median(counts), shares, index)


class DriftWatch:
    """Says in the log of a worker, once a day, which of its detectors give other scores than their cards."""

    def __init__(self, engine: Engine, analyser: Analyser, names: Sequence[str], log: Any) -> None:
        self._engine = engine
        self._analyser = analyser
        self._names = names
        self._log = log
        self._next = time.monotonic() + LOOK_SECONDS

    def look(self) -> None:
        """Look when it is time.

        Raises:
            StoreUnavailable: the database cannot be read; the next look tells.
        """
        if time.monotonic() < self._next:
            return
        for name in self._names:
            loaded = self._analyser.load(name)
            if loaded is not None:
                with reading(self._engine) as tx:
                    found = drift(tx, loaded.manifest, LOOK_DAYS, time.time())
                if found.state == "changed":
                    text = f"Stability index {found.index:.2f}; see `radnode models drift`."
                    self._log.warning("score_drift", model=f"{name} {found.version}", count=found.images, message=text)
        self._next = time.monotonic() + DAY_SECONDS


def _term(count: float, expected: float) -> float:
    count = max(count, _LEAST)
    return (count - expected) * math.log(count / expected)


def _median(counts: Mapping[int, int]) -> float | None:
    seen, half = 0, sum(counts.values()) / 2
    for number in sorted(counts):
        seen += counts[number]
        if seen >= half:
            return score_of(number)
    return None
