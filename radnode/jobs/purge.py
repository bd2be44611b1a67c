"""What queue and index know of a study, taken out in one transaction, and the objects whose room is to be given back.

A study's rows and its key go together; its objects, which nothing can open from then on, wait in `doomed_objects` until
their room was given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
)

from radnode.jobs.schema import (
    commitments,
    doomed_objects,
    instances,
    jobs,
    results,
    secondary,
    sendings,
    series,
    series_images,
    series_results,
    shadow_results,
    study_patients,
)
from radnode.model import JobKind, JobState

_IMAGE_JOBS = (JobKind.ANALYSE, JobKind.FORWARD)


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken out of the index: how many images and results, and whose (pseudonyms)."""

    instances: int
    results: int
    patients: tuple[str, ...]


def studies_of(tx: Connection, patient: str) -> list[str]:
    """Return the studies (pseudonyms) that hold an image of a patient (a pseudonym)."""
    query = select(instances.c.study).where(instances.c.patient == patient).distinct().order_by(instances.c.study)
    return list(tx.scalars(query))


def counts(tx: Connection, study: str) -> tuple[int, int]:
    """Return how many images and results a study has."""
    images, made = (select(func.count()).select_from(of(study).subquery()) for of in (_images_of, _results_of))
    return tx.scalar(images) or 0, tx.scalar(made) or 0


def expired(tx: Connection, before: float) -> list[str]:
    """Return the studies whose last image came before a time (epoch seconds), the oldest first."""
    last = func.max(instances.c.received)
    query = select(instances.c.study).group_by(instances.c.study).having(last < before).order_by(last)
    return list(tx.scalars(query))


def has_work(tx: Connection, study: str) -> bool:
    """Say whether anything of a study is still to be analysed or delivered, or its series are not complete."""
    live = jobs.c.state.in_((JobState.READY, JobState.LEASED))
    waiting = select(series.c.series).where(series.c.study == study, series.c.due.is_not(None))
    return any(_any(tx, select(jobs.c.job).where(where, live)) for where in _jobs_of(study)) or _any(tx, waiting)


def is_being_sent(tx: Connection, study: str) -> bool:
    """Say whether a delivery has hold of an object of a study, so that it may be on its way at this moment."""
    held = and_(jobs.c.state == JobState.LEASED, jobs.c.kind.in_((JobKind.DELIVER, JobKind.FORWARD)))
    return any(_any(tx, select(jobs.c.job).where(where, held)) for where in _jobs_of(study))


def remove_study(tx: Connection, study: str) -> Removed:
    """Take every row of a study out, and doom its objects."""
    of_images, of_results = instances.c.study == study, results.c.study == study
    patients = union_all(
        select(instances.c.patient).where(of_images),
        select(study_patients.c.patient).where(study_patients.c.study == study),
    )
    found = tuple(sorted(set(tx.scalars(patients))))
    objects = union_all(
        select(instances.c.object_id).where(of_images),
        select(results.c.object_id).where(of_results),
        select(results.c.report_id).where(of_results),
        select(secondary.c.object_id).where(secondary.c.result.in_(_results_of(study))),
        select(shadow_results.c.object_id).where(shadow_results.c.study == study),
    )
    tx.execute(insert(doomed_objects).from_select(["object_id"], objects))
    tx.execute(delete(series_results).where(series_results.c.result.in_(_results_of(study))))
    for kind, subjects in (
        (JobKind.DELIVER, _results_of(study)),
        (JobKind.DELIVER, _secondary_of(study)),
        (JobKind.FORWARD, _images_of(study)),
    ):
        tx.execute(delete(sendings).where(sendings.c.kind == kind, sendings.c.subject.in_(subjects)))
    for theirs in _jobs_of(study):
        tx.execute(delete(jobs).where(theirs))
    tx.execute(delete(secondary).where(secondary.c.result.in_(_results_of(study))))
    gone_results = tx.execute(delete(results).where(of_results)).rowcount
    tx.execute(delete(shadow_results).where(shadow_results.c.study == study))
    tx.execute(delete(series_images).where(series_images.c.study == study))
    tx.execute(delete(series).where(series.c.study == study))
    tx.execute(delete(study_patients).where(study_patients.c.study == study))
    gone_images = tx.execute(delete(instances).where(of_images)).rowcount
    return Removed(gone_images, gone_results, found)


def forget_commitments(tx: Connection, before: float) -> int:
    """Forget the storage commitments that were answered and came before a time (epoch seconds); return how many."""
    answered = and_(commitments.c.object_id.is_(None), commitments.c.received < before)
    subjects = select(commitments.c.commitment).where(answered)
    tx.execute(delete(jobs).where(jobs.c.kind == JobKind.COMMIT, jobs.c.subject.in_(subjects)))
    return tx.execute(delete(commitments).where(answered)).rowcount


def doomed(tx: Connection, limit: int) -> list[bytes]:
    """Return objects whose room is still to be given back."""
    return list(tx.scalars(select(doomed_objects.c.object_id).order_by(doomed_objects.c.object_id).limit(limit)))


def spare(tx: Connection, objects: Sequence[bytes]) -> None:
    """Say that the room of these objects was given back."""
    tx.execute(delete(doomed_objects).where(doomed_objects.c.object_id.in_(objects)))


def _jobs_of(study: str) -> tuple[ColumnElement[bool], ...]:
    """The jobs of a study, by kind: each condition finds them by an index."""
    dot = literal(".")
    generations = select(series_images.c.series + dot + cast(series_images.c.generation, String)).where(
        series_images.c.study == study
    )
    return (
        and_(or_(*(jobs.c.kind == kind for kind in _IMAGE_JOBS)), jobs.c.subject.in_(_images_of(study))),
        and_(jobs.c.kind == JobKind.DELIVER, jobs.c.subject.in_(_results_of(study))),
        and_(jobs.c.kind == JobKind.DELIVER, jobs.c.subject.in_(_secondary_of(study))),
        and_(jobs.c.kind == JobKind.SERIES, jobs.c.subject.in_(generations)),
    )


def _images_of(study: str) -> Select[tuple[str]]:
    return select(instances.c.instance).where(instances.c.study == study)


def _results_of(study: str) -> Select[tuple[str]]:
    return select(results.c.result).where(results.c.study == study)


def _secondary_of(study: str) -> Select[tuple[str]]:
    return select(secondary.c.secondary).where(secondary.c.result.in_(_results_of(study)))


def _any(tx: Connection, query: Select[tuple[object]]) -> bool:
    return tx.execute(query.limit(1)).first() is not None
