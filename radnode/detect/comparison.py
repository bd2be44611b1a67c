"""The comparison of a version in the shadow with the active one, over the images that both looked at. Without torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from radnode.errors import KeyUnavailable, NotFoundError
from radnode.jobs.database import reading
from radnode.jobs.index import results_on
from radnode.jobs.shadows import shadow_results_of
from radnode.stores import Stores

FURTHEST = 5  # images whose scores differ most, named so that somebody can look
_RAN = {"finding": True, "no_finding": False}


@dataclass(frozen=True, slots=True)
class Pair:
    """What the two said about one image (or series): documents as `results show --json` prints them."""

    instance: str
    active: dict[str, Any]
    shadow: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Furthest:
    """One image on which the scores differ: the result of the active version to look at, and both scores."""

    result: str
    active: float
    shadow: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures; None where there is nothing to compute them from.

    `images` is how many both looked at, `without_result` on how many of them the shadow failed or declined. The four
    counts, `agreement` (share) and `kappa` (Cohen's) are about whether there is a finding. Differences are shadow minus
    active, of scores in 0..1; `peaks_apart` is the median distance of their highest points in pixels of the image.
    """

    model: str
    shadow: str
    beside: tuple[str, ...]
    images: int
    without_result: dict[str, int]
    both: int
    only_active: int
    only_shadow: int
    neither: int
    agreement: float | None
    kappa: float | None
    mean_active: float | None
    mean_shadow: float | None
    mean_difference: float | None
    mean_absolute_difference: float | None
    largest_difference: float | None
    peaks_apart: float | None
    furthest: tuple[Furthest, ...] = ()


def pairs_of(stores: Stores, name: str, version: str, limit: int) -> list[Pair]:
    """Return what a version said in the shadow and the active one beside it, newest first.

    What can be opened no more, since its study was purged at this moment, is left out.
    """
    with reading(stores.engine) as tx:
        rows = shadow_results_of(tx, f"{name} {version}", limit)
    found = []
    for row in rows:
        try:
            document = json.loads(stores.vault.get(row.object_id))
        except (NotFoundError, KeyUnavailable):
            continue
        found.append(Pair(row.instance, document["beside"], document))
    return found


def compare(stores: Stores, name: str, version: str, limit: int) -> Comparison:
    """Compare a version that ran in the shadow with the active one, over its last `limit` images.

    Raises:
        NotFoundError: it has looked at none.
    """
    pairs = pairs_of(stores, name, version, limit)
    if not pairs:
        raise NotFoundError(f"{name} {version} has looked at nothing in the shadow; see `radnode models shadow`.")
    return compared(name, version, pairs, lambda pair: _result(stores, name, pair))


def compared(name: str, version: str, pairs: Sequence[Pair], result: Callable[[Pair], str]) -> Comparison:
    """Return the figures of some pairs; `result` names the result of the active version of a pair."""
    ran = [pair for pair in pairs if pair.shadow["outcome"] in _RAN and pair.active["outcome"] in _RAN]
    counts = Counter((_RAN[pair.active["outcome"]], _RAN[pair.shadow["outcome"]]) for pair in ran)
    both, neither = counts[True, True], counts[False, False]
    scored = [pair for pair in ran if None not in (pair.active["score"], pair.shadow["score"])]
    differences = [pair.shadow["score"] - pair.active["score"] for pair in scored]
    furthest = sorted(zip(scored, differences, strict=True), key=lambda item: -abs(item[1]))[:FURTHEST]
    peaks = [(pair.active["peak"], pair.shadow["peak"]) for pair in ran]
    apart = [math.dist(*both_peaks) for both_peaks in peaks if all(both_peaks)]
    return Comparison(
        model=name,
        shadow=version,
        beside=tuple(sorted({pair.active["model"]["version"] for pair in pairs})),
        images=len(pairs),
        without_result=dict(Counter(pair.shadow["reason"] for pair in pairs if pair.shadow["outcome"] not in _RAN)),
        both=both,
        only_active=counts[True, False],
        only_shadow=counts[False, True],
        neither=neither,
        agreement=(both + neither) / len(ran) if ran else None,
        kappa=_kappa(both, counts[True, False], counts[False, True], neither),
        mean_active=_mean([pair.active["score"] for pair in scored]),
        mean_shadow=_mean([pair.shadow["score"] for pair in scored]),
        mean_difference=_mean(differences),
        mean_absolute_difference=_mean([abs(value) for value in differences]),
        largest_difference=max(map(abs, differences), default=None),
        peaks_apart=median(apart) if apart else None,
        furthest=tuple(Furthest(result(pair), pair.active["score"], pair.shadow["score"]) for pair, _ in furthest),
    )


def _kappa(both: int, only_active: int, only_shadow: int, neither: int) -> float | None:
    """Return Cohen's kappa; None where chance alone would agree on everything, or there is nothing."""
    count = both + only_active + only_shadow + neither
    if not count:
        return None
    active, shadow = (both + only_active) / count, (both + only_shadow) / count
    chance = active * shadow + (1 - active) * (1 - shadow)
    return None if chance == 1 else ((both + neither) / count - chance) / (1 - chance)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _result(stores: Stores, name: str, pair: Pair) -> str:
    """Return the result of the active version on the image of a pair; "" where there is none any more."""
    with reading(stores.engine) as tx:
        found = results_on(tx, pair.instance, f"{name} {pair.active['model']['version']}")
    return found[-1] if found else ""
