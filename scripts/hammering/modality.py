"""A modality: Debian's storescu under an AE title and a certificate of its own, which sends until it is answered."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from support.node import NodeProcess

from hammering.images import Image, series
from hammering.ledger import ACKNOWLEDGED, Ledger

_LINES = re.compile(r"^I: (?:Sending file: (?P<file>.*)|Received Store Response \((?P<answer>.*)\))$", re.MULTILINE)
_RETRY_SECONDS = 0.2
_LATE, _LATE_SECONDS = 2, 3.0  # slices of a series that come when it may be complete, and how much later
_KEPT = 3  # acknowledged images of which one is sent once more with the next series
PUSH_SECONDS = 120.0  # the longest that one association may take


class Budget:
    """How many images the modalities may still send: as many as there are kills to meet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = 0
        self._closed = False

    def grant(self, count: int) -> None:
        """Allow so many at the most, however few of those granted before were taken."""
        with self._changed:
            self._left = max(self._left, count)
            self._changed.notify_all()

    def take(self, count: int) -> int:
        """Wait until something may be sent and return how much, at most `count`; 0 at the end of the run."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._closed)
            taken = 0 if self._closed else min(count, self._left)
            self._left -= taken
        return taken

    def close(self) -> None:
        """Allow nothing more: who sends finishes what he began."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Modality(threading.Thread):
    """Pushes one series after the other, each until every image of it is acknowledged."""

    def __init__(
        self, node: NodeProcess, identity: tuple[str, str], folder: Path, ledger: Ledger, budget: Budget, seed: int
    ) -> None:
        """`identity` is AE title and name of the certificate."""
        super().__init__(name=identity[0], daemon=True)
        self._node = node
        self._ae_title, self._certificate = identity
        self._folder = folder
        self._ledger = ledger
        self._budget = budget
        self._chance = random.Random(seed)  # noqa: S311 (choices that can be repeated, no secret)
        self._kept: list[Image] = []
        folder.mkdir()

    def run(self) -> None:
        """Send until the budget is closed."""
        while count := self._budget.take(self._chance.randint(4, 16)):
            images = series(self._folder, self._chance, count)
            late = (
                _LATE if images[0].modality == "CT" and len(images) > 2 * _LATE and self._chance.random() < 0.5 else 0
            )
            self._push(images[: len(images) - late])
            if late:  # the series has its report by then, or nearly
                time.sleep(_LATE_SECONDS)
                self._push(images[-late:])
            if self._kept:  # a modality that was told success and sends again all the same
                self._push([self._chance.choice(self._kept)])
            for image in self._kept:
                image.path.unlink()
            self._kept = images[:_KEPT]
            for image in images[_KEPT:]:
                image.path.unlink()

    def _push(self, images: Sequence[Image]) -> None:
        """Send images until each is acknowledged, on as many associations as that takes."""
        waiting = list(images)
        while waiting:
            answers = self._associate(waiting)
            waiting = [image for image in waiting if not (answers.get(image.path) or "").startswith(ACKNOWLEDGED)]
            if waiting:
                self._ledger.break_off()
                time.sleep(self._chance.uniform(0.2, 1.0) * _RETRY_SECONDS)

    def _associate(self, images: Sequence[Image]) -> dict[Path, str | None]:
        """Send images on one association; return what was answered to each that was sent, None: nothing."""
        files = [image.path for image in images]
        command = self._node.storescu_command(files, certificate=self._certificate, ae_title=self._ae_title)
        with self._ledger:
            sent = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PUSH_SECONDS, check=False
            )
        answers: dict[Path, str | None] = {}
        current: Path | None = None
        for line in _LINES.finditer(sent.stderr):
            if line["file"] is not None:
                current = Path(line["file"])
                answers[current] = None
            elif current is not None:
                answers[current] = line["answer"]
        for image in images:
            if image.path in answers:
                self._ledger.record(image, self._ae_title, answers[image.path])
        return answers
