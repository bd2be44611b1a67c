"""init, serve, check."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from pydantic import ValidationError

from radnode.cli.common import AETitleParam, config_option, json_option, open_node, print_json
from radnode.configuration import find_config, load_settings
from radnode.settings import DestinationSettings

SERVABLE = ("intake", "worker", "deliver")


class Address(click.ParamType[DestinationSettings]):
    """AE@host:port as a destination."""

    name = "AE@host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> DestinationSettings:
        """Return the destination that a text names."""
        if isinstance(value, DestinationSettings):
            return value
        title, _, where = str(value).partition("@")
        host, _, port = where.rpartition(":")
        title = AETitleParam().convert(title, param, ctx)
        try:
            return DestinationSettings(name="pacs", ae_title=title, host=host.strip("[]") or "?", port=int(port))
        except (ValidationError, ValueError):
            self.fail(f"{value!r} is not an address like PACS@127.0.0.1:4242.", param, ctx)


@click.command()
@click.argument("folder", metavar="[DIR]", default="var", type=click.Path(path_type=Path))
@click.option("--port", default=2762, show_default=True, type=click.IntRange(1, 65535), help="DICOM over TLS.")
@click.option("--pacs", type=Address(), help="Where reports go; written as the destination `pacs`.")
@click.option("--pacs-plain", is_flag=True, help="The PACS speaks DICOM without TLS.")
def init(folder: Path, port: int, pacs: DestinationSettings | None, pacs_plain: bool) -> None:
    """Make a node in DIR: a commented radnode.toml, keys, a test PKI, and the shipped model packages.

    The test PKI (DIR/pki) has an authority and certificates for this node (server), a modality (MODALITY1), a
    receiving PACS (pacs) and an administrator (admin). Replace it by your hospital's before real use. Nothing that
    exists is overwritten.
    """
    from radnode.initialise import initialise  # noqa: PLC0415

    if pacs_plain and pacs is None:
        raise click.UsageError("--pacs-plain says how to reach a PACS; name it with --pacs AE@host:port.")
    if pacs is not None:
        pacs = pacs.model_copy(update={"tls": not pacs_plain})
    config = initialise(folder, port, pacs)
    click.echo(f"A node was made in {config.parent}.")
    click.echo(f"  configuration  {config}")
    click.echo(f"  modality       AE title MODALITY1 with {config.parent / 'pki' / 'modality.crt'} and .key")
    click.echo(f"  keys           {config.parent / 'keys'} (make a backup elsewhere: without them nothing opens)")
    click.echo(f"Next: radnode check -c {config}; radnode serve -c {config}")


@click.command()
@config_option
@click.option("--role", "roles", default="all", show_default=True, help="all, or some of intake,worker,deliver.")
def serve(config: Path | None, roles: str) -> None:
    """Run the node until SIGTERM, then drain it. The log goes to standard output, one JSON object a line."""
    from radnode.node import Node  # noqa: PLC0415
    from radnode.supervisor import Supervisor  # noqa: PLC0415

    wanted = SERVABLE if roles == "all" else tuple(role.strip() for role in roles.split(","))
    if unknown := [role for role in wanted if role not in SERVABLE]:
        raise click.UsageError(f"There is no role {unknown[0]!r}; the roles are all, {', '.join(SERVABLE)}.")
    path = find_config(config)
    sys.exit(Supervisor(path, Node(load_settings(path)), wanted).run())


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Say whether configuration, keys, certificates, disk, database, models and destinations are fit."""
    from radnode.fitness import examine  # noqa: PLC0415

    findings = []
    for finding in examine(open_node(config)):
        findings.append(finding)
        if not as_json:
            mark = click.style("ok ", fg="green") if finding.fit else click.style("BAD", fg="red")
            click.echo(f"{mark}  {finding.subject}: {finding.text}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if not all(finding.fit for finding in findings):
        sys.exit(1)
