"""models list, verify."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from radnode.cli.common import config_option, json_option, open_node, print_json, print_table
from radnode.detect.catalogue import active, installed
from radnode.detect.package import load_trusted, verify_package


@click.group()
def models() -> None:
    """Model packages."""


@models.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List the packages of this node and which version of each is active."""
    node = open_node(config)
    folder = node.settings.path(node.settings.detect.models)
    rows = [
        {"name": name, "version": version, "active": path == active(folder, name), "path": str(path)}
        for name, version, path in installed(folder)
    ]
    if as_json:
        print_json(rows)
        return
    table = [(row["name"], row["version"], "active" if row["active"] else "", row["path"]) for row in rows]
    print_table(("NAME", "VERSION", "STATE", "PATH"), table, "no models")


@models.command()
@config_option
@json_option
def verify(config: Path | None, as_json: bool) -> None:
    """Check the signature and every file of every package; exit 1 and say which file differs."""
    node = open_node(config)
    folder = node.settings.path(node.settings.detect.models)
    trusted = load_trusted(folder)
    rows = [
        {"name": name, "version": version, "problems": verify_package(path, trusted)}
        for name, version, path in installed(folder)
    ]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['name']} {row['version']}: {'; '.join(row['problems']) or 'ok'}")
        if not rows:
            click.echo("no models")
    if any(row["problems"] for row in rows):
        sys.exit(1)
