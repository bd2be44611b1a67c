"""jobs list, show, retry, discard."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click
from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import AuditRecord
from radnode.cli.common import config_option, json_option, local_time, open_node, print_json, print_table, user
from radnode.jobs.database import reading, transaction
from radnode.jobs.destinations import dead_letters, out_of_reach
from radnode.jobs.index import find_instance, find_result
from radnode.jobs.queue import JobRow
from radnode.model import JobKind, JobState
from radnode.node import Node


@click.group()
def jobs() -> None:
    """The queue and its dead letters; safe while the node runs."""


@jobs.command("list")
@config_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Also what is done.")
def list_(config: Path | None, as_json: bool, everything: bool) -> None:
    """List what waits, what is being worked on, and the dead letters."""
    states = [state for state in JobState if everything or state is not JobState.DONE]
    node = open_node(config)
    with reading(node.engine) as tx:
        for name, gone in out_of_reach(tx).items():
            click.echo(f"{name} is out of reach since {local_time(gone.since)}: {gone.error}", err=True)
    rows = node.queue.listing(states)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = [
        (row.job, row.kind, row.state, row.destination or "-", row.attempts, local_time(row.due), row.error or "")
        for row in rows
    ]
    print_table(("JOB", "KIND", "STATE", "DESTINATION", "TRIES", "DUE", "LAST ERROR"), table, "no jobs")


@jobs.command()
@click.argument("job", type=int)
@config_option
@json_option
def show(job: int, config: Path | None, as_json: bool) -> None:
    """Show one job."""
    row = asdict(open_node(config).queue.show(job))
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
    for role in dict.fromkeys("worker" if row.kind is JobKind.ANALYSE else "deliver" for row in rows):
        node.bell.ring(role)
    node.settle_trail()
    click.echo(f"Job {job} is due now." if job is not None else f"{len(rows)} dead letters are due now.")


@jobs.command()
@click.argument("job", type=int)
@config_option
def discard(job: int, config: Path | None) -> None:
    """Remove a dead job for good; what it was about stays stored."""
    node = open_node(config)
    row = node.queue.show(job)
    with transaction(node.engine) as tx:
        node.queue.discard(tx, job)
        _record(node, tx, row, "discarded")
    node.settle_trail()
    click.echo(f"Job {job} is discarded.")


def _record(node: Node, tx: Connection, row: JobRow, change: str) -> None:
    """Audit what was done to a job, with the patient whose image or result it is about."""
    look = find_result if row.kind is JobKind.DELIVER else find_instance
    found = look(tx, row.subject)
    detail: dict[str, str | int] = {"job": row.job, "job_kind": row.kind.value, "change": change}
    record = AuditRecord(events.JOB_CHANGED, user(), detail=detail)
    if found is not None:
        record = replace(record, patient=found.patient, study=found.study, instance=found.instance)
    node.audit.record(tx, record)
