"""`scripts/bench silent`: a push of CT images alone, and beside silent and dripping strangers, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import objects
from benchmarks.client import Clients, Sent
from benchmarks.servers import RECIPES, Recipe, Server
from benchmarks.strangers import Strangers
from radnode.pki import make_test_pki

SILENT, DRIPPING = 500, 50
IMAGES = 200
MUST = 0.8  # of the undisturbed speed
_ALONE = 5  # pushes before, and as many after


def measure(seconds: float, settings: dict[str, str], folder: Path, say: Callable[[str], None] = print) -> None:
    """Push alone, for `seconds` beside the strangers, and alone again; print the ratio of the medians.

    Raises:
        PushFailed: the node answered anything but success.
    """
    pki = folder / "pki"
    make_test_pki(pki)
    recipe = Recipe("radnode", RECIPES["radnode"].keeps, "radnode", settings)
    with Clients(1, [objects.ct()]) as clients, Server(recipe, folder, pki) as server:

        def push() -> Sent:
            return clients.push(server.target, "ct", IMAGES, 1)

        push()  # warms
        alone = [push() for _ in range(_ALONE)]
        beside = []
        with Strangers(server.target, SILENT, DRIPPING) as strangers:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                beside.append(push())
            opened = strangers.opened
        server.tree.settle()
        alone += [push() for _ in range(_ALONE)]
    say(f"alone   {_told(alone)}")
    say(f"beside  {_told(beside)}, {SILENT} silent and {DRIPPING} dripping clients ({opened:,} connections in all)")
    ratio = _speed(beside) / _speed(alone)
    say(f"ratio   {ratio:.2f}x, must {MUST:g}x: {'met' if ratio >= MUST else 'NOT met'}")


def _speed(pushes: list[Sent]) -> float:
    return median(one.megabytes_per_second for one in pushes)


def _told(pushes: list[Sent]) -> str:
    p99 = median(one.percentile_ms(99) for one in pushes)
    return f"{_speed(pushes):6.1f} MB/s, p99 {p99:.1f} ms (medians of {len(pushes)} pushes of {IMAGES} CT)"
