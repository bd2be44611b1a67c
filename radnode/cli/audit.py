"""audit tail, show, export, verify; `report` is in `audit_report`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from radnode.audit import events, read
from radnode.audit.anchors import SYSLOG, anchor_of
from radnode.audit.log import open_sealed
from radnode.cli.audit_report import report
from radnode.cli.common import accountable, config_option, json_option, open_node, print_json, user, write_private
from radnode.configuration import find_config, load_settings
from radnode.errors import ConfigError, RadnodeError, StoreUnavailable
from radnode.storage.keys import read_key

FOLLOW_SECONDS = 0.5


@click.group()
def audit() -> None:
    """The tamper-evident trail of who did what to whose data."""


audit.add_command(report)


@audit.command()
@config_option
@json_option
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(1), help="How many entries.")
@click.option("-f", "--follow", is_flag=True, help="Go on with entries as they come.")
@click.option("--patient", help="Only entries about this Patient ID.")
@click.option("--issuer", default="", help="Issuer of that Patient ID.")
@accountable
def tail(config: Path | None, as_json: bool, count: int, follow: bool, patient: str | None, issuer: str) -> None:
    """Print the newest entries, oldest of them first; reading is audited."""
    node = open_node(config)
    pseudonym = None if patient is None else node.pseudonyms.patient(issuer, patient)
    wanted = read.Filter(patient=pseudonym)
    node.record(events.TRAIL_READ, user(), patient=pseudonym, command="tail")
    node.settle_trail()
    newest = list(islice(read.entries(node.audit_folder, wanted, newest_first=True), count))
    last = 0
    for entry in reversed(newest):
        _print(entry, as_json)
        last = entry["seq"]
    while follow:
        time.sleep(FOLLOW_SECONDS)
        fresh = []
        for entry in read.entries(node.audit_folder, wanted, newest_first=True):
            if entry["seq"] <= last:
                break
            fresh.append(entry)
        for entry in reversed(fresh):
            _print(entry, as_json)
            last = entry["seq"]


@audit.command()
@click.argument("seq", type=click.IntRange(1))
@config_option
@click.option("--identity", is_flag=True, help="Also open the sealed identity (needs the audit key).")
@accountable
def show(seq: int, config: Path | None, identity: bool) -> None:
    """Print one entry in full; reading is audited."""
    node = open_node(config)
    node.settle_trail()
    entry = dict(read.entry(node.audit_folder, seq))
    opened = {"purpose": "identity", **{name: entry[name] for name in ("patient", "study", "instance")}}
    node.record(events.TRAIL_READ, user(), command="show", first=seq, last=seq, **(opened if identity else {}))
    node.settle_trail()
    if identity:
        entry["identity"] = open_sealed(entry, read_key(node.key_folder / "audit.key"))
    print_json(entry)


@audit.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@config_option
@accountable
def export(folder: Path, config: Path | None) -> None:
    """Copy the trail into a new FOLDER, with its public key and the verifier, for whoever is to judge it.

    Identities stay sealed, and no key goes with it. In FOLDER, `python verify.py audit audit-sign.pub` verifies.
    """
    from radnode.audit import verify as verifier  # noqa: PLC0415
    from radnode.backup import copy_trail  # noqa: PLC0415

    node = open_node(config)
    if folder.exists():
        raise RadnodeError(f"{folder} exists already; choose another name.")
    node.record(events.TRAIL_READ, user(), command="export")
    node.settle_trail()
    try:
        folder.mkdir(mode=0o700)
        copy_trail(node.audit_folder, folder / "audit")
    except OSError as error:
        raise StoreUnavailable(f"The trail cannot be copied to {folder} ({error.strerror}).") from error
    for path in (node.key_folder / "audit-sign.pub", Path(verifier.__file__)):
        write_private(folder / path.name, path.read_bytes())
    click.echo(f"{folder}: the trail, readable by you alone; verify it there: python verify.py audit audit-sign.pub")


@audit.command()
@config_option
@json_option
def verify(config: Path | None, as_json: bool) -> None:
    """Check every entry against the signed checkpoints; exit 1 and name the first that was touched.

    Reads the files, the public key, the database and the anchors, and shares no code with what wrote them.
    """
    from radnode.audit import verify as verifier  # noqa: PLC0415

    settings = load_settings(find_config(config))
    folder = settings.data_dir / "audit"
    public_key = settings.path(settings.keys.directory) / "audit-sign.pub"
    database = settings.data_dir / "node.db"
    try:
        with ExitStack() as stack:
            days, base = settings.audit.retention_days, settings.data_dir
            places = [anchor_of(place, base, None, days) for place in settings.audit.anchor if place != SYSLOG]
            anchors = [stack.enter_context(anchor.notes()) for anchor in places]
            found = verifier.verify(folder, public_key, database if database.exists() else None, anchors)
    except (OSError, ValueError) as error:
        raise ConfigError(f"The trail or its public key {public_key} cannot be read.") from error
    if as_json:
        print_json({"folder": str(folder), **asdict(found)})
    elif found.ok:
        pending = f", {found.pending} more on their way" if found.pending else ""
        purged = f", the first {found.purged} purged" if found.purged else ""
        counts = f"{found.entries} entries, {found.checkpoints} checkpoints{purged}{pending}"
        click.echo(f"audit verify: ok, {counts} ({folder})")
    else:
        where = "" if found.first_bad is None else f"entry {found.first_bad}: "
        click.echo(f"audit verify: BROKEN, {where}{found.problem} ({folder})")
    if not found.ok:
        sys.exit(1)


def _print(entry: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(entry))
        return
    actor = entry["actor"]
    who = actor["user"] or actor["ae"] or actor["address"] or "-"
    about = next((f"{key} {entry[key]}" for key in ("instance", "study", "patient") if entry[key]), "")
    detail = " ".join(f"{key}={value}" for key, value in entry["detail"].items())
    line = f"{entry['seq']:>6} {entry['timestamp']} {entry['event']} {entry['action']} {entry['outcome']} by {who}"
    click.echo("  ".join(part for part in (line, about, detail) if part))
