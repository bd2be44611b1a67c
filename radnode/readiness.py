"""When a series is complete: what a look at it saw, and when it will be ready for a detector of whole series.

A series is ready when nothing of it came for `quiet_seconds`, whoever sent it; at once when it has as many images as
were announced; and in any case `force_seconds` after the first image that waits. An announced number that turns out
too small is not believed any more; one that is too large is never reached, and the quiet decides. None of it can lose
an image: what comes after a job makes the next one.

The clock may jump. No time that was noted may lie in the future of a look: it is taken for now. A clock that went back
thus costs at most another `quiet_seconds`; one that went forward completes a series early, and the next job mends that.
"""

from __future__ import annotations

from dataclasses import dataclass

from radnode.settings import CompletionSettings


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw of a series of which images wait for a job; times in epoch seconds.

    `kept` is how many images the series has, in jobs or not, `first` since when there are some that wait, `last` when
    an image came last.
    """

    kept: int
    first: float
    last: float


def look(before: Sight, *, kept: int, oldest: float, newest: float, now: float) -> Sight:
    """Return what is to be seen now, given what was seen before.

    `kept` is how many images the series has, `oldest` when the first of those that wait was received and `newest` when
    the last of all was; in epoch seconds by a clock that may have been another.
    """
    last = newest if kept > before.kept else before.last
    return Sight(kept, min(before.first, oldest, now), min(last, now))


def ready_at(sight: Sight, announced: int | None, settings: CompletionSettings) -> float:
    """Return when the series is ready if nothing more of it comes; not after the time of the look: it is ready.

    `announced` is how many images the series is to have as its own data says; the configuration overrides it.
    """
    if sight.kept == (settings.expected_instances or announced):
        return sight.last
    return min(sight.last + settings.quiet_seconds, sight.first + settings.force_seconds)


def announcement(NumberOfSeriesRelatedInstances: str) -> int | None:
    """Return how many images a header says that the series has, None when it does not say; 1 stands in every slice.

    Images in Acquisition (0020,1002) is not asked: a series may have several acquisitions, and half of it is no series.
    """
    digits = NumberOfSeriesRelatedInstances.strip()
    if digits.isascii() and digits.isdigit() and 2 <= int(digits[:10]) < 1_000_000:
        return int(digits[:10])
    return None
