"""A log that remembers what it was told, for rooms that are given one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self


class Recorder:
    """Stands in for a structlog logger."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.levels: list[tuple[str, str]] = []  # event and level

    def bind(self, **_: object) -> Self:
        """Return itself."""
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        """Return what remembers one line of that level."""

        def say(event: str, **values: Any) -> None:
            self.lines.append((event, values))
            self.levels.append((event, level))

        return say

    def events(self) -> list[str]:
        """Return the events in order."""
        return [event for event, _ in self.lines]
