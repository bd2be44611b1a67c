"""backup, restore."""

from __future__ import annotations

from pathlib import Path

import click

from radnode.audit import events
from radnode.audit.events import AuditRecord
from radnode.backup import make_backup
from radnode.cli.common import accountable, config_option, open_node, user
from radnode.jobs.database import transaction
from radnode.maintenance import alone
from radnode.restoration import restore as restore_node
from radnode.storage.key_copy import remember_copy, write_copy

_keys_option = click.option(
    "--keys",
    "keys",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The key copy: the newest study keys, apart from every backup.",
)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@_keys_option
@config_option
@accountable
def backup(folder: Path, keys: Path, config: Path | None) -> None:
    """Copy database, objects and trail into the new folder DIR, sealed as they are; safe while the node runs.

    No study key is in DIR. They stand in the key copy FILE, which this and every later backup and purge replaces: so
    a study that is purged opens in no backup any more. Keep FILE on another disk, where no old version of it is kept.
    """
    target, copy = folder.resolve(), keys.resolve()
    if copy.is_relative_to(target):
        raise click.UsageError("The key copy must not be in the backup: a purge could not reach it there.")
    node = open_node(config)
    with alone(node.settings.data_dir):
        node.settle_trail()
        made = make_backup(node.settings.data_dir, target, node.stores.clock())
        with transaction(node.engine) as tx:
            remember_copy(tx, copy)
        with transaction(node.engine) as tx:
            count = write_copy(tx, copy, node.stores.clock())
            detail: dict[str, str | int] = {"command": "backup", "count": made.objects}
            node.audit.record(tx, AuditRecord(events.COMMAND_USED, user(), detail=detail))
    node.settle_trail()
    click.echo(f"{target}: {made.objects} objects, {made.entries} audit entries; {count} study keys in {copy}")
    click.echo("Not in it: radnode.toml, the folder keys, certificates, models. Keep a copy of these elsewhere.")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_keys_option
@config_option
@accountable
def restore(folder: Path, keys: Path, config: Path | None) -> None:
    """Restore the backup DIR with the key copy FILE into a node that has its configuration and its keys, and no data.

    Every object is opened and the trail is verified before it says ok. What was purged since the backup stays purged.
    """
    node = open_node(config)
    with alone(node.settings.data_dir):
        done = restore_node(node, folder.resolve(), keys, user())
    click.echo(f"restore: ok, {done.objects} objects open, {done.entries} audit entries verify")
    if done.purged:
        click.echo(f"{done.purged} studies were purged after the backup was made, and are taken out.")
