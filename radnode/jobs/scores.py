"""How often each score was given, by model and day: counts alone, which say nothing of anybody.

A bin is a tenth of a logit wide, log(p / (1 - p)) of the score p, so that scores near 0 and 1 are told apart too.
"""

from __future__ import annotations

import math

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from radnode.jobs.schema import score_counts

DAY_SECONDS = 86_400
HIGHEST = 100  # of the bins, and -100 is the lowest


def bin_of(score: float) -> int:
    """Return the bin of a score in 0..1."""
    if not 0.0 < score < 1.0:
        return HIGHEST if score > 0.5 else -HIGHEST
    return max(-HIGHEST, min(HIGHEST, round(10 * math.log(score / (1.0 - score)))))


def score_of(bin_number: float) -> float:
    """Return the score in the middle of a bin."""
    return 1.0 / (1.0 + math.exp(-bin_number / 10))


def count_score(tx: Connection, model: str, score: float, now: float) -> None:
    """Count one score of a model, as "NAME VERSION", on the day of `now` (epoch seconds)."""
    values = {"model": model, "day": int(now // DAY_SECONDS), "bin": bin_of(score), "count": 1}
    statement = insert(score_counts).values(values)
    key = ["model", "day", "bin"]
    tx.execute(statement.on_conflict_do_update(index_elements=key, set_={"count": score_counts.c.count + 1}))


def score_histogram(tx: Connection, model: str, since: float) -> dict[int, int]:
    """Return how often each bin was counted of a model from the day of `since` (epoch seconds) on, by rising bin."""
    mine = (score_counts.c.model == model, score_counts.c.day >= int(since // DAY_SECONDS))
    query = select(score_counts.c.bin, func.sum(score_counts.c.count)).where(*mine).group_by(score_counts.c.bin)
    return {int(number): int(count) for number, count in tx.execute(query.order_by(score_counts.c.bin))}
