"""How long is waited before something is tried again."""

from __future__ import annotations

import random

from radnode.settings import DeliverSettings


def pause(settings: DeliverSettings, attempt: int) -> float:
    """Return the seconds after the n-th try that failed: the first pause doubled each time, with a limit and jitter."""
    longest = min(settings.retry_max_seconds, settings.retry_seconds * float(1 << min(attempt - 1, 16)))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load; no secret)
