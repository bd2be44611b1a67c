"""The measurements as Markdown: a table of servers, a table of storescu, and the goals with what was reached."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.receive import Sample
from benchmarks.servers import Recipe

BEGIN, END = "<!-- written by scripts/bench receive -->", "<!-- end of what scripts/bench wrote -->"
_HEAD = (
    "| receiver, over mutual TLS | CT 1 MB/s | CT 4 MB/s | DX 1 MB/s | DX 4 MB/s | CPU s/GB (CT 1 / 4) "
    "| p50 / p99 ms (CT 1) | p50 / p99 ms (CT 4) | peak MB | keeps |"
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of throughputs, radnode's to a peer's, in one scenario each; measured in the same round."""

    title: str
    scenario: str
    peer: str
    must: float
    reach: float


GOALS = (
    Goal("Orthanc, tuned, 1 association", "ct1", "orthanc", 2, 2.5),
    Goal("Orthanc, tuned, 4 associations", "ct4", "orthanc", 2, 3),
    Goal("Orthanc, both as shipped, Debian's storescu as shipped", "storescu", "orthanc-shipped", 20, 40),
    Goal("stock pynetdicom `save_as`, 1 association", "ct1", "stock", 3, 4),
    Goal("stock pynetdicom `save_as`, 4 associations", "ct4", "stock", 5, 8),
    Goal("raw TLS to file + fsync, 1 stream", "ct1", "raw-fsync", 0.65, 0.85),
    Goal("dcmtk storescp +B, tuned, 4 associations", "ct4", "dcmtk", 0.5, 0.8),
)
CPU_MUST, CPU_REACH = 2.0, 1.5  # seconds per 10**9 bytes


class Samples:
    """All samples of a run, by server and scenario."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._all = list(samples)

    def median(self, server: str, scenario: str, value: Callable[[Sample], float | None]) -> float | None:
        """Return the median over the rounds; None where it was not measured."""
        found = [value(one) for one in self._all if (one.server, one.scenario) == (server, scenario)]
        known = [one for one in found if one is not None]
        return median(known) if known else None

    def ratio(self, server: str, goal: Goal) -> float | None:
        """Return the median over the rounds of the ratio in each."""
        speeds = {
            (one.server, one.round): one.megabytes_per_second for one in self._all if one.scenario == goal.scenario
        }
        ratios = [
            speed / speeds[goal.peer, number]
            for (name, number), speed in speeds.items()
            if name == server and (goal.peer, number) in speeds
        ]
        return median(ratios) if ratios else None

    def has(self, scenario: str) -> bool:
        """Say whether the scenario was measured at all."""
        return any(one.scenario == scenario for one in self._all)

    def tls(self) -> str:
        """Name the TLS versions that were spoken."""
        return ", ".join(sorted({one.tls for one in self._all if one.tls}))


def render(samples: Samples, recipes: Sequence[Recipe], lines: Iterable[str]) -> str:
    """Return the whole report; `lines` stand at its head."""
    parts = ["\n".join(f"- {line}" for line in (*lines, f"spoken: {samples.tls()}"))]
    parts.append("\n".join([_HEAD, "|---" * (_HEAD.count("|") - 1) + "|", *_servers(samples, recipes)]))
    if samples.has("storescu") or samples.has("storescu-tuned"):
        head = "| Debian's storescu, CT, MB/s | as shipped | TCP_NODELAY=1 |"
        parts.append("\n".join([head, "|---|---|---|", *_storescu(samples, recipes)]))
    nodes = [recipe.name for recipe in recipes if recipe.program == "radnode"]
    if nodes:
        head = "| goal | measured | must | | reach | |"
        rows = [row for node in nodes for row in _goals(samples, node)]
        parts.append("\n".join([head, "|---|---|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def write(report: str, path: Path) -> None:
    """Put the report between the marks of a page; what is written by hand around them stays.

    Raises:
        ValueError: the page has no such marks.
    """
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path.name} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{report}\n{END}{after}", encoding="utf-8")


def _servers(samples: Samples, recipes: Sequence[Recipe]) -> list[str]:
    rows = []
    for recipe in recipes:
        speeds = [
            _number(samples.median(recipe.name, scenario, lambda one: one.megabytes_per_second), 0)
            for scenario in ("ct1", "ct4", "dx1", "dx4")
        ]
        if not any(speeds):
            continue
        cpu = [
            _number(samples.median(recipe.name, scenario, lambda one: one.cpu_seconds_per_gigabyte), 2)
            for scenario in ("ct1", "ct4")
        ]
        latency = [
            " / ".join(
                _number(samples.median(recipe.name, scenario, value), 2)
                for value in (lambda one: one.p50_ms, lambda one: one.p99_ms)
            )
            for scenario in ("ct1", "ct4")
        ]
        peaks = (
            samples.median(recipe.name, scenario, lambda one: one.peak_megabytes)
            for scenario in ("ct1", "ct4", "dx1", "dx4")
        )
        peak = _number(max((one for one in peaks if one is not None), default=None), 0)
        cells = [_title(recipe), *speeds, " / ".join(cpu), *latency, peak, recipe.keeps]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _storescu(samples: Samples, recipes: Sequence[Recipe]) -> list[str]:
    rows = []
    for recipe in recipes:
        speeds = [
            samples.median(recipe.name, scenario, lambda one: one.megabytes_per_second)
            for scenario in ("storescu", "storescu-tuned")
        ]
        if speeds != [None, None]:
            rows.append(f"| {' | '.join([_title(recipe), *(_number(speed, 0) for speed in speeds)])} |")
    return rows


def _goals(samples: Samples, node: str) -> list[str]:
    rows = []
    for goal in GOALS:
        ratio = samples.ratio(node, goal)
        if ratio is not None:
            must, reach = _verdict(ratio >= goal.must), _verdict(ratio >= goal.reach)
            title = f"{node} against {goal.title}"
            rows.append(f"| {title} | {ratio:.2f}x | {goal.must:g}x | {must} | {goal.reach:g}x | {reach} |")
    spent = [samples.median(node, scenario, lambda one: one.cpu_seconds_per_gigabyte) for scenario in ("ct1", "ct4")]
    known = [one for one in spent if one is not None]
    if known:
        must, reach = _verdict(max(known) <= CPU_MUST), _verdict(max(known) <= CPU_REACH)
        title = f"{node}: CPU per GB, the worse of 1 and 4 associations"
        rows.append(f"| {title} | {max(known):.2f} s | {CPU_MUST:g} s | {must} | {CPU_REACH:g} s | {reach} |")
    return rows


def _title(recipe: Recipe) -> str:
    return re.sub(r"^(dcmtk|orthanc)$", r"\1, TCP_NODELAY=1", recipe.name).replace("-shipped", ", as shipped")


def _verdict(met: bool) -> str:
    return "met" if met else "not met"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
