"""Arms the places of `radnode.failpoints` in processes that run, and sees who was hit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from radnode.failpoints import COMMAND_PLACES, PLACES, VARIABLE


class Failpoints:
    """The folder in which a node looks for armed places; `environment` is what it must be started with."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.environment = {VARIABLE: str(folder)}
        self.hits: Counter[str] = Counter()

    def arm(self, place: str, signal: str = "KILL") -> None:
        """The next process that comes by this place sends itself a signal (KILL, STOP)."""
        assert place in PLACES or place in COMMAND_PLACES
        draft = self._folder / "draft"
        draft.write_text(signal)
        draft.rename(self._folder / place)

    def hit(self, place: str) -> int | None:
        """Return the process that came by since the place was armed, None while nobody did; counted once."""
        for path in self._folder.glob(f"{place}.*"):
            pid = int(path.suffix[1:])
            path.unlink()
            self.hits[place] += 1
            return pid
        return None

    def disarm(self, place: str) -> bool:
        """Nobody is hit here any more; False where somebody was."""
        try:
            (self._folder / place).unlink()
        except FileNotFoundError:
            return False
        return True
