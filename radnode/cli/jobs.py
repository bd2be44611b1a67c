"""jobs list, show, retry, repeat, discard, pause, resume."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import AuditRecord
from radnode.cli.common import (
    accountable,
    config_option,
    json_option,
    local_time,
    open_node,
    print_json,
    print_table,
    user,
)
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import dead_letters, out_of_reach, waiting_jobs
from radnode.jobs.holds import STAGES, Hold, held, hold, let_go
from radnode.jobs.index import find_instance, find_result
from radnode.jobs.register import JobRow
from radnode.jobs.repeats import analysis_of, results_of
from radnode.jobs.sendings import drop_sending
from radnode.jobs.series import find_series
from radnode.model import JobKind, JobState
from radnode.node import Node

_AT_ONCE = 256  # jobs a commit: the node that runs writes in between
_STAGES = tuple(dict.fromkeys(STAGES.values()))
_stages_argument = click.argument(
    "stages",
    nargs=-1,
    metavar="[analyse|deliver]",
    type=click.Choice([stage.value for stage in _STAGES]),
)


@click.group()
def jobs() -> None:
    """The queue and its dead letters; safe while the node runs."""


@jobs.command("list")
@config_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Also what is done.")
@accountable
def list_(config: Path | None, as_json: bool, everything: bool) -> None:
    """List what waits, what is being worked on, and the dead letters; then the series that are not complete yet."""
    states = [state for state in JobState if everything or state is not JobState.DONE]
    node = open_node(config)
    for what, since in held(node.engine).items():
        click.echo(f"{what.text} since {local_time(since)}.", err=True)
    with reading(node.engine) as tx:
        for name, gone in out_of_reach(tx).items():
            if node.settings.destination(name) is not None:
                click.echo(f"{name} is out of reach since {local_time(gone.since)}: {gone.error}", err=True)
    for lost in node.unaddressed():
        click.echo(f"{_number(lost.count)} for {lost.name}, which the configuration does not name.", err=True)
        click.echo(lost.advice, err=True)
    rows, waiting = node.queue.listing(states), node.completion.waiting()
    if as_json:
        common = {"job": None, "kind": JobKind.SERIES, "destination": "", "state": "waiting"}
        series = [{**common, "subject": row.series, **asdict(row)} for row in waiting]
        print_json([*(asdict(row) for row in rows), *series])
        return
    header = ("JOB", "KIND", "STATE", "DESTINATION", "PRIORITY", "TRIES", "DUE", "LAST ERROR")
    print_table(header, [_columns(row) for row in rows], "no jobs")
    if waiting:
        click.echo()
        lines = [
            (row.series, row.waiting, row.kept, row.expected or "-", local_time(row.since), local_time(row.last))
            for row in waiting
        ]
        print_table(("SERIES NOT COMPLETE", "WAITING", "KEPT", "EXPECTED", "SINCE", "LAST IMAGE"), lines, "")


def _number(count: int) -> str:
    """Begin a sentence about jobs that wait."""
    return f"{count} job waits" if count == 1 else f"{count} jobs wait"


def _columns(row: JobRow) -> tuple[object, ...]:
    where, due = row.destination or "-", local_time(row.due)
    return row.job, row.kind, row.state, where, row.priority, row.attempts, due, row.error or ""


@jobs.command()
@click.argument("job", type=int)
@config_option
@json_option
@accountable
def show(job: int, config: Path | None, as_json: bool) -> None:
    """Show one job."""
    node = open_node(config)
    row = asdict(node.queue.show(job))
    node.record(events.COMMAND_USED, user(), command="jobs show", job=job)
    node.settle_trail()
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        click.echo(f"{key:<12} {local_time(value) if key in ('due', 'created', 'updated') else value}")


@jobs.command()
@click.argument("job", type=int, required=False)
@click.option("--destination", metavar="NAME", help="All dead deliveries to this destination.")
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@config_option
@accountable
def retry(job: int | None, destination: str | None, everything: bool, config: Path | None) -> None:
    """Put a dead or waiting job, or many dead ones, back to the front, their tries counted from zero."""
    if (job is not None) + (destination is not None) + everything != 1:
        raise click.UsageError("Name a job, a --destination, or --all.")
    node = open_node(config)
    with reading(node.engine) as tx:
        numbers = dead_letters(tx, destination) if job is None else [job]
    rows = [node.queue.show(number) for number in numbers]
    with transaction(node.engine) as tx:
        for row in rows:
            node.queue.retry(tx, row.job)
            _record(node, tx, row, "retried")
    for role in dict.fromkeys("worker" if STAGES[row.kind] is Hold.ANALYSE else "deliver" for row in rows):
        node.bell.ring(role)
    node.settle_trail()
    click.echo(f"Job {job} is due now." if job is not None else f"{len(rows)} dead letters are due now.")
    for lost in node.unaddressed():
        if lost.name in {row.destination for row in rows}:
            click.echo(f"The configuration does not name {lost.name}: they wait until it does.", err=True)


@jobs.command()
@click.argument("results", metavar="RESULT...", nargs=-1)
@click.option("--model", metavar="'NAME VERSION'", help="All results that this version of a detector made.")
@config_option
@accountable
def repeat(results: Sequence[str], model: str | None, config: Path | None) -> None:
    """Have the images of results, or their series, analysed again, by the detectors that the rules name now.

    They wait their turn, behind what is urgent. A version of a detector that has not seen an image makes a new report,
    which names the one before it; one that has makes the same report, and nothing goes out twice.
    """
    if bool(results) == (model is not None):
        raise click.UsageError("Name results, or a --model.")
    node = open_node(config)
    with reading(node.engine) as tx:
        named = results_of(tx, model) if model is not None else results
        analyses = list(dict.fromkeys(analysis_of(tx, result) for result in named))
    count = 0
    for start in range(0, len(analyses), _AT_ONCE):
        with transaction(node.engine) as tx:
            for kind, subject in analyses[start : start + _AT_ONCE]:
                if (row := node.queue.repeat(tx, kind, subject)) is not None:
                    _record(node, tx, row, "repeated")
                    count += 1
    node.bell.ring("worker")
    node.settle_trail()
    waiting = len(analyses) - count
    due = "1 analysis is due again" if count == 1 else f"{count} analyses are due again"
    click.echo(due + (f", {waiting} still to be done anyway." if waiting else "."))


@jobs.command()
@click.argument("job", type=int, required=False)
@click.option("--destination", metavar="NAME", help="All dead deliveries to this destination.")
@config_option
@accountable
def discard(job: int | None, destination: str | None, config: Path | None) -> None:
    """Remove a dead job, or many, for good; what they were about stays stored.

    Jobs that wait for a destination or a peer that the configuration does not name any more are removed, too.
    """
    if (job is None) == (destination is None):
        raise click.UsageError("Name a job or a --destination.")
    node = open_node(config)
    with reading(node.engine) as tx:
        lost = {number for each in node.unaddressed() for number in waiting_jobs(tx, each)}
        dead = dead_letters(tx, destination) if job is None else [job]
    rows = [node.queue.show(number) for number in dead]
    if job is None:
        rows += [row for number in sorted(lost) if (row := node.queue.show(number)).destination == destination]
    for start in range(0, len(rows), _AT_ONCE):
        _discard(node, rows[start : start + _AT_ONCE], lost)
    node.settle_trail()
    click.echo(f"Job {job} is discarded." if job is not None else f"{len(rows)} jobs are discarded.")


def _discard(node: Node, rows: Sequence[JobRow], waiting: Collection[int]) -> None:
    """Remove jobs with what belongs to them alone, in one commit."""
    sealed = []
    with transaction(node.engine) as tx:
        for row in rows:
            node.queue.discard(tx, row.job, waiting=row.job in waiting)
            drop_sending(tx, row.kind, row.subject, row.destination)
            sealed += [node.commitments.drop(tx, row.subject)] if row.kind is JobKind.COMMIT else []
            _record(node, tx, row, "discarded")
    for object_id in filter(None, sealed):
        node.vault.discard(object_id)


@jobs.command()
@_stages_argument
@config_option
@accountable
def pause(stages: Sequence[str], config: Path | None) -> None:
    """Start no more analyses or deliveries, or neither; what is being worked on is finished.

    Images are accepted as before, and what waits is kept. It holds until `resume`, also over a restart.
    """
    _switch(open_node(config), stages, paused=True)


@jobs.command()
@_stages_argument
@config_option
@accountable
def resume(stages: Sequence[str], config: Path | None) -> None:
    """Go on with what was paused: analyses, deliveries, or both."""
    _switch(open_node(config), stages, paused=False)


def _switch(node: Node, stages: Sequence[str], *, paused: bool) -> None:
    """Hold stages or let them go, all where none is named; what changes nothing is not audited."""
    for stage in [Hold(name) for name in stages] or _STAGES:
        change = "paused" if paused else "resumed"
        with transaction(node.engine) as tx:
            changed = hold(tx, stage, node.stores.clock()) if paused else let_go(tx, stage)
            if changed:
                detail = {"job_kind": stage.value, "change": change}
                node.audit.record(tx, AuditRecord(events.JOB_CHANGED, user(), detail=detail))
        if not paused:
            node.bell.ring("worker" if stage is Hold.ANALYSE else "deliver")
        click.echo(f"{stage.value} is {change}." if changed else f"{stage.value} was {change} already.")
    node.settle_trail()


def _record(node: Node, tx: Connection, row: JobRow, change: str) -> None:
    """Audit what was done to a job, with the patient whose image or result it is about."""
    detail: dict[str, str | int] = {"job": row.job, "job_kind": row.kind.value, "change": change}
    record = AuditRecord(events.JOB_CHANGED, user(), detail=detail)
    if row.kind is JobKind.SERIES:
        series = find_series(tx, row.subject)
        record = record if series is None else replace(record, patient=series.patient, study=series.study)
    else:
        look = find_instance if row.kind in (JobKind.ANALYSE, JobKind.FORWARD) else find_result
        found = look(tx, row.subject.partition(".")[0])  # that of a secondary object begins with its result
        if found is not None:
            record = replace(record, patient=found.patient, study=found.study, instance=found.instance)
    node.audit.record(tx, record)
