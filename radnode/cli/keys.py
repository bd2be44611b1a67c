"""keys list, rotate, retire, forget."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from radnode.audit import events
from radnode.audit.events import AuditRecord
from radnode.cli.common import accountable, config_option, json_option, open_node, print_json, print_table, user
from radnode.errors import NotFoundError, RadnodeError
from radnode.jobs.database import reading, transaction
from radnode.keyring import Keyring
from radnode.node import Node
from radnode.storage.key_copy import forget_copy, known_copies, renew_copies


@click.group()
def keys() -> None:
    """The key-encryption keys; safe while the node runs."""


@keys.command("list")
@config_option
@json_option
@accountable
def list_(config: Path | None, as_json: bool) -> None:
    """List the key-encryption keys, and how many study keys each one wraps."""
    node = open_node(config)
    rows = _keyring(node).listing()
    node.record(events.COMMAND_USED, user(), command="keys list")
    node.settle_trail()
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(("KEY", "STATE", "STUDY KEYS"), [(row.key, row.state, row.study_keys) for row in rows], "no keys")


@keys.command()
@click.option("--new", "always_new", is_flag=True, help="Make a new key also where a rotation was cut short.")
@config_option
@accountable
def rotate(always_new: bool, config: Path | None) -> None:
    """Make a new key and wrap every study key under it; a rotation that was cut short is finished instead.

    The provider makes the key where it can (file, vault); elsewhere make it current there first.
    """
    node = open_node(config)
    done = _keyring(node).rotate(user(), always_new=always_new)
    with transaction(node.engine) as tx:
        behind = renew_copies(tx, node.stores.clock())
    node.settle_trail()
    made = "a new key, is current" if done.is_new else "is current"
    click.echo(f"{done.key} {made}; {done.wrapped} study keys were wrapped under it anew.")
    for error in behind:
        click.echo(f"radnode: {error}", err=True)
    if behind:
        sys.exit(1)


@keys.command()
@click.argument("key", metavar="KEY")
@config_option
@accountable
def retire(key: str, config: Path | None) -> None:
    """Destroy a key under which nothing is wrapped any more.

    Copies of the database from before the rotation that wrapped everything anew can then no longer be read. A key copy
    that the rotation did not reach keeps the key: it would be of no use to a restore.
    """
    node = open_node(config)
    with reading(node.engine) as tx:
        behind = [str(path) for path, is_current in known_copies(tx).items() if not is_current]
    if behind:
        raise RadnodeError(
            f"{', '.join(behind)} may need {key}: bring it back and run `radnode purge`, which renews it, or say that "
            "it was destroyed with `radnode keys forget`."
        )
    gone = _keyring(node).retire(key, user())
    node.settle_trail()
    click.echo(f"{key} is retired" + ("." if gone else "; remove it where the provider takes it from."))


@keys.command()
@click.argument("copy", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@accountable
def forget(copy: Path, config: Path | None) -> None:
    """Say that a key copy (see `radnode backup`) was destroyed, so that purges look for it no more."""
    node = open_node(config)
    with transaction(node.engine) as tx:
        if not forget_copy(tx, copy.resolve()):
            raise NotFoundError(f"No key copy is known at {copy.resolve()}.")
        detail: dict[str, str | int] = {"change": "copy_forgotten"}
        node.audit.record(tx, AuditRecord(events.KEY_CHANGED, user(), detail=detail))
    node.settle_trail()
    click.echo(f"{copy.resolve()} is no longer looked for.")


def _keyring(node: Node) -> Keyring:
    return Keyring(node.stores, node.key_provider, node.study_keys)
