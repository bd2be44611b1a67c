"""How long is waited before something is tried again."""

from __future__ import annotations

import random

from radnode.settings import DeliverSettings


def pause(settings: DeliverSettings, attempt: int, longest: float | None = None) -> float:
    """Return the seconds after the n-th try that failed: the first pause doubled each time, with a limit and jitter.

    `longest` in place of `deliver.retry_max_seconds`.
    """
    limit = settings.retry_max_seconds if longest is None else longest
    doubled = min(limit, settings.retry_seconds * float(1 << min(attempt - 1, 16)))
    return doubled * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load; no secret)
