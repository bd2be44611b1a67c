"""Which analysis made a result: the job that, done once more, lets the detectors of today look at the same images."""

from __future__ import annotations

from sqlalchemy import Connection, and_, select

from radnode.jobs.completion import subject_of
from radnode.jobs.index import get_result
from radnode.jobs.schema import results, series, series_results
from radnode.model import JobKind


def analysis_of(tx: Connection, result: str) -> tuple[JobKind, str]:
    """Return kind and subject of the analysis that a result comes from; of a series, that of all its images.

    Raises:
        NotFoundError: there is no result of that id.
    """
    found = get_result(tx, result)
    same = and_(series.c.series == series_results.c.series, series.c.study == series_results.c.study)
    query = select(series.c.series, series.c.generation).join(series_results, same)
    row = tx.execute(query.where(series_results.c.result == result)).one_or_none()
    if row is None:
        return JobKind.ANALYSE, found.instance
    return JobKind.SERIES, subject_of(row.series, row.generation)


def results_of(tx: Connection, model: str) -> list[str]:
    """Return the results that one version of a detector made ("NAME VERSION"), oldest first."""
    query = select(results.c.result).where(results.c.model == model).order_by(results.c.created, results.c.result)
    return list(tx.scalars(query))
