"""`scripts/bench memory`: what the listener holds after few and many CT images, and while many films come at once.

Memory is VmRSS summed over the listener's processes, in 10**6 bytes; the supervisor and the sequencer are not in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from benchmarks import objects
from benchmarks.client import Clients
from benchmarks.processes import Tree, status_bytes
from benchmarks.servers import RECIPES, Recipe, Server, require_disk
from radnode.pki import make_test_pki

LISTENER = "radnode.process intake"  # in the command line of its processes
FEW = 500  # images, after which memory is compared with what it is after many
ASSOCIATIONS = 20
FILMS_EACH = 5
MUST_MB, REACH_MB = 250, 150
FLAT = 1.05  # memory after many images over that after few
_BATCH = 1000
_EVERY_SECONDS = 0.02


class Watch:
    """The most that the listener ever held while this context lasted."""

    def __init__(self, tree: Tree) -> None:
        self._pids = tree.pids(LISTENER)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = 0

    def now(self) -> int:
        """Return what it holds now, in bytes."""
        return sum(status_bytes(pid, "VmRSS") for pid in self._pids)

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self.most = max(self.most, self.now())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def measure(images: int, settings: dict[str, str], folder: Path, say: Callable[[str], None] = print) -> None:
    """Push `images` CT and then films, and print what the listener holds at each step.

    Raises:
        PushFailed: the node answered anything but success.
        RuntimeError: the disk is too full.
    """
    require_disk(folder, images * 525_000)
    pki = folder / "pki"
    make_test_pki(pki)
    environment = {"RADNODE_NODE__MAX_ASSOCIATIONS_PER_PEER": str(ASSOCIATIONS), **settings}
    recipe = Recipe("radnode", RECIPES["radnode"].keeps, "radnode", environment)
    with Clients(ASSOCIATIONS, [objects.ct(), objects.dx()]) as clients, Server(recipe, folder, pki) as server:
        watch = Watch(server.tree)
        say(f"{_mb(watch.now())} at rest, before anything came")
        held = {}
        sent = 0
        with watch:
            for goal in (min(FEW, images), images):
                while sent < goal:
                    count = min(_BATCH, goal - sent)
                    clients.push(server.target, "ct", count, 4)
                    sent += count
                server.tree.settle()
                held[goal] = watch.now()
                say(f"{_mb(held[goal])} after {goal:,} CT over 4 associations at a time")
        say(f"{_mb(watch.most)} at most until then")
        ratio = held[images] / held[min(FEW, images)]
        say(f"{ratio:.3f}x after {images:,} against {min(FEW, images)}: {'flat' if ratio <= FLAT else 'NOT flat'}")
        with Watch(server.tree) as films:
            clients.push(server.target, "dx", ASSOCIATIONS * FILMS_EACH, ASSOCIATIONS)
        most = films.most / 1e6
        met = "reach met" if most < REACH_MB else "must met" if most < MUST_MB else "NOT met"
        say(f"{most:.0f} MB at most while {ASSOCIATIONS} associations push {FILMS_EACH} films of 10.5 MB each")
        say(f"goal: under {MUST_MB} MB, reach {REACH_MB} MB: {met}")
        server.tree.settle()
        say(f"{_mb(films.now())} afterwards")


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
