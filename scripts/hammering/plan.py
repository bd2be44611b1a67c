"""What is killed, and where: drawn before the run, from the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

from radnode.failpoints import PLACES

START = "start-repairing"  # the one place that only the supervisor comes by
# How often each is the one that is killed at a moment of its own. All and the supervisor come often, because a role
# that dies again and again is started again later and later, and a new supervisor knows nothing of that.
TARGETS = {"listener": 3, "listeners": 1, "worker": 3, "deliver": 3, "sequencer": 2, "supervisor": 2, "all": 4}
A_PROCESS = "a process"  # whichever comes by a place
_ALL_OF_IT = 0.4  # how often a place is one where all processes die


@dataclass(frozen=True, slots=True)
class Blow:
    """One kill -9: of a role, of the supervisor or of all; at a place in the code, or at a moment (no place)."""

    target: str
    place: str | None
    delay: float  # seconds from the moment at which there is work in flight

    def __str__(self) -> str:
        return self.target if self.place is None else f"{self.target} at {self.place}"


def draw(kills: int, chance: random.Random) -> list[Blow]:
    """Return that many kills, at every place once and the others at moments, in random order."""
    blows = [Blow("all" if chance.random() < _ALL_OF_IT else A_PROCESS, place, 0.0) for place in PLACES]
    names, weights = list(TARGETS), list(TARGETS.values())
    while len(blows) < kills:
        if chance.random() < 0.25:
            blows.append(Blow(chance.choice([A_PROCESS, "all"]), chance.choice(list(PLACES)), 0.0))
        else:
            blows.append(Blow(chance.choices(names, weights)[0], None, chance.uniform(0.0, 0.15)))
    chance.shuffle(blows)
    return blows
