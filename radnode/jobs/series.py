"""What the job of a completed series is about: its images, and what was said about it before."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.sql import ColumnElement

from radnode.jobs.index import InstanceRow
from radnode.jobs.schema import instances, results, series, series_images, series_results


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One completed series: pseudonyms, and the generation of its last job."""

    series: str
    study: str
    patient: str
    generation: int


def find_series(tx: Connection, subject: str) -> SeriesRow | None:
    """Return the series that a job is about; None when a later job of the series has taken its place."""
    name, _, generation = subject.partition(".")
    found = and_(series.c.series == name, series.c.generation == int(generation or 0), series.c.generation > 0)
    columns = (series.c.series, series.c.study, series.c.patient, series.c.generation)
    row = tx.execute(select(*columns).where(found)).one_or_none()
    return None if row is None else SeriesRow(**row._mapping)


def images_of(tx: Connection, row: SeriesRow) -> list[InstanceRow]:
    """Return the images of the series that its job is about, in the order of their pseudonyms."""
    joined = instances.join(series_images, series_images.c.instance == instances.c.instance)
    theirs = and_(_of(series_images, row), series_images.c.generation <= row.generation)
    query = select(instances).select_from(joined).where(theirs).order_by(instances.c.instance)
    return [InstanceRow(**found._mapping) for found in tx.execute(query)]


def add_series_result(tx: Connection, row: SeriesRow, detector: str, result: str) -> None:
    """Say that a result, which is there, is what a detector said about the series."""
    values = {"series": row.series, "study": row.study, "generation": row.generation}
    tx.execute(insert(series_results).values(result=result, detector=detector, **values).on_conflict_do_nothing())


def last_report(tx: Connection, row: SeriesRow, detector: str) -> bytes | None:
    """Return the object id of the last report that a detector made about the series, None when it made none."""
    query = (
        select(results.c.report_id)
        .select_from(results.join(series_results, series_results.c.result == results.c.result))
        .where(_of(series_results, row), series_results.c.detector == detector)
        .order_by(series_results.c.generation.desc(), results.c.created.desc(), results.c.result)
        .limit(1)
    )
    found: bytes | None = tx.scalar(query)
    return found


def _of(table: Table, row: SeriesRow) -> ColumnElement[bool]:
    return and_(table.c.series == row.series, table.c.study == row.study)
