"""A log that remembers what it was told, for rooms that are given one."""

from __future__ import annotations

from typing import Any, Self


class Recorder:
    """Stands in for a structlog logger."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def bind(self, **_: object) -> Self:
        """Return itself."""
        return self

    def info(self, event: str, **values: Any) -> None:
        """Remember one line."""
        self.lines.append((event, values))

    warning = error = critical = info

    def events(self) -> list[str]:
        """Return the events in order."""
        return [event for event, _ in self.lines]
