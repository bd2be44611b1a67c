"""purge: by retention, by study, by patient."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path

import click

from radnode.audit import events
from radnode.cli.common import accountable, config_option, json_option, open_node, print_json, user
from radnode.errors import RadnodeError
from radnode.jobs.database import transaction
from radnode.maintenance import alone
from radnode.node import Node
from radnode.purge import Purge, Purged
from radnode.storage.key_copy import renew_copies

_PSEUDONYM = re.compile(r"[0-9a-f]{32}")


@click.command()
@click.option("--study", "wanted", metavar="STUDY", help="This Study Instance UID, or its pseudonym.")
@click.option("--patient", metavar="ID", help="Every study that holds an image of this Patient ID.")
@click.option("--issuer", default="", help="Issuer of that Patient ID.")
@click.option("--dry-run", is_flag=True, help="Say which studies would go; change nothing.")
@config_option
@json_option
@accountable
def purge(
    wanted: str | None, patient: str | None, issuer: str, dry_run: bool, config: Path | None, as_json: bool
) -> None:
    """Destroy studies for good: by retention (storage.retention_days), or those that are named.

    The key of a study is destroyed, and with it every copy of its objects, those in backups too; then its rows and its
    room are given back. Copies of the database made by hand keep the wrapped key: rotate and retire the key-encryption
    key to make them unreadable. What is in the audit trail stays. Safe while the node runs. A purge that was cut short
    is finished by the next.
    """
    if wanted is not None and patient is not None:
        raise click.UsageError("Name a --study or a --patient.")
    node = open_node(config)
    days = node.settings.storage.retention_days
    work = Purge(node.stores)
    cause, busy = "request", list[str]()
    whose = None if patient is None else node.pseudonyms.patient(issuer, patient)
    if wanted is not None:
        studies = [wanted if _PSEUDONYM.fullmatch(wanted) else node.pseudonyms.study(wanted.strip(" \0"))]
    elif whose is not None:
        studies = work.studies_of(whose)
    else:
        cause = "retention"
        studies, busy = work.expired(days) if days else ([], [])
        if not days and not as_json:
            click.echo("storage.retention_days is 0: everything is kept; name a --study or a --patient.", err=True)
    if dry_run:
        about = studies[0] if wanted is not None else None
        node.record(events.COMMAND_USED, user(), patient=whose, study=about, command="purge --dry-run")
        node.settle_trail()
        _tell(as_json, [work.look(study) for study in studies], "would be purged")
        return
    with alone(node.settings.data_dir):
        work.reclaim()  # what one before this left
        gone, failed = _purge(node, work, studies, cause)
        if days and cause == "retention":
            work.forget_commitments(days)
        room = work.reclaim()
        with transaction(node.engine) as tx:
            failed += renew_copies(tx, node.stores.clock())
    node.settle_trail()
    _tell(as_json, gone, "purged")
    if not as_json:
        click.echo(f"{len(gone)} studies are purged, the room of {room} objects is given back.")
    for study in busy:
        click.echo(f"{study}: past its retention, kept until its analyses and deliveries are done", err=True)
    for error in failed:
        click.echo(f"radnode: {error}", err=True)
    if failed:
        sys.exit(1)


def _purge(node: Node, work: Purge, studies: list[str], cause: str) -> tuple[list[Purged], list[RadnodeError]]:
    """Purge one study after the other; what one of them meets keeps no other."""
    gone, failed = list[Purged](), list[RadnodeError]()
    for study in studies:
        try:
            gone.append(work.study(study, user(), cause))
        except RadnodeError as error:
            failed.append(error)
    return gone, failed


def _tell(as_json: bool, rows: list[Purged], what: str) -> None:
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        counted = f": {row.instances} images, {row.results} results" if row.instances else ""
        click.echo(f"{row.study} {what}{counted}")
