"""Strikes: waits until there is work in flight, kills, and starts again what must be started."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from support.crash import CrashNode
from support.failpoints import Failpoints
from support.node import wait_for

from hammering.ledger import Ledger
from hammering.modality import Budget
from hammering.plan import START, Blow

IMAGES = 24  # that a kill may meet
WORK_SECONDS = 10.0  # how long to wait for work in flight at the most: a worker takes five seconds to start
PLACE_SECONDS = 25.0  # how long to wait until somebody comes by a place
GRANT_SECONDS = 2.0  # how often more images are sent meanwhile
_LOOK_SECONDS = 0.005
_LEASED = "SELECT count(*) FROM jobs WHERE state = 'leased' AND kind = "
_ROLES = {"listener": "intake", "listeners": "intake"}


class Striker:
    """Gives blows to one node."""

    def __init__(self, node: CrashNode, failpoints: Failpoints, ledger: Ledger, budget: Budget, logs: Path) -> None:
        self._node = node
        self._failpoints = failpoints
        self._ledger = ledger
        self._budget = budget
        self._logs = logs
        self.starts = 0
        self.missed = 0  # places by which nobody came in time, and moments at which there was nothing in flight
        logs.mkdir()

    def start(self) -> None:
        """Start the node, with a log of its own for each start, and wait for its listeners."""
        self.starts += 1
        self._node.log_path = self._logs / f"{self.starts:04d}.log"
        self._node.start(wait=("intake",))

    def strike(self, blow: Blow) -> bool:
        """Kill what the blow names; False where nobody came by its place in time, and nothing was killed."""
        self._budget.grant(IMAGES)
        if blow.place is None:
            self._at_a_moment(blow)
            return True
        if blow.place == START:
            return self._at_the_start(blow.place)
        return self._at_a_place(blow.place, everything=blow.target == "all")

    def _at_a_moment(self, blow: Blow) -> None:
        if not _within(WORK_SECONDS, lambda: self._in_flight(blow.target)):
            self.missed += 1
        time.sleep(blow.delay)
        if blow.target == "all":
            self._everything()
        elif blow.target == "supervisor":
            self._node.kill_supervisor()
            self.start()  # at once: it waits for those who still drain
        else:
            pids = wait_for(lambda: self._node.pids(_ROLES.get(blow.target, blow.target)), 60, f"{blow.target} runs")
            for pid in pids if blow.target == "listeners" else pids[:1]:
                os.kill(pid, signal.SIGKILL)

    def _at_a_place(self, place: str, *, everything: bool) -> bool:
        """Kill whoever comes by, or freeze him there and kill all."""
        self._failpoints.arm(place, "STOP" if everything else "KILL")

        deadline = time.monotonic() + PLACE_SECONDS
        while not _within(GRANT_SECONDS, lambda: self._failpoints.hit(place)) and time.monotonic() < deadline:
            self._budget.grant(IMAGES)
        if self._failpoints.disarm(place):
            self.missed += 1
            return False
        if everything:
            self._everything()
        return True

    def _at_the_start(self, place: str) -> bool:
        """Kill all, and the next supervisor while it repairs what that left."""
        self._node.kill_everything()
        self._failpoints.arm(place)
        self._node.start(wait=())
        died = self._node.await_end(30)
        self._failpoints.hit(place)
        self.start()
        return died == -signal.SIGKILL

    def _everything(self) -> None:
        self._node.kill_everything()
        self.start()

    def _in_flight(self, target: str) -> bool:
        """Whether there is work that a kill of this target would interrupt."""
        if target == "worker":
            return self._leased("analyse")
        if target == "deliver":
            return self._leased("deliver")
        if target in {"supervisor", "all"}:
            return self._ledger.pushing or self._leased("analyse") or self._leased("deliver")
        return self._ledger.pushing

    def _leased(self, kind: str) -> bool:
        return bool(self._node.query(f"{_LEASED}'{kind}'")[0][0])


def _within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether something comes true in time; looked for more often than `wait_for` does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(_LOOK_SECONDS)
    return False
