"""models list, verify, add, shadow, activate, rollback, remove."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from radnode.audit import events
from radnode.cli.common import accountable, config_option, json_option, open_node, print_json, print_table, user
from radnode.detect.catalogue import installed
from radnode.detect.package import load_trusted, verify_package
from radnode.errors import NotFoundError

if TYPE_CHECKING:
    from radnode.detect.lifecycle import Lifecycle
    from radnode.node import Node

T = TypeVar("T")

_KINDS = ("torchscript", "export", "monai", "torchxrayvision", "python")  # those of radnode.detect.making

_name = click.argument("name", metavar="NAME")
_version = click.argument("version", metavar="VERSION")


@click.group()
def models() -> None:
    """Model packages and their life on this node; safe while the node runs."""


@models.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List the packages of this node, and which version of each is active or runs in the shadow."""
    rows = open_node(config).lifecycle(user()).listing()
    if as_json:
        print_json([{**asdict(row), "active": row.state == "active", "path": str(row.path)} for row in rows])
        return
    table = [(row.name, row.version, row.state, row.path) for row in rows]
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


@models.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--template", type=click.Choice(_KINDS), help="Make a package of the model in PATH, to fill in and sign.")
@click.option("--name", help="What it is to be called, with --template.")
@click.option("--version", default="1.0.0", show_default=True, help="Its version, with --template.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The folder to make; without it ./NAME.")
@config_option
@accountable
def add(
    path: Path, template: str | None, name: str | None, version: str, output: Path | None, config: Path | None
) -> None:
    """Install the signed package in the folder PATH. It is checked and tried, and not in use before `activate`.

    With --template nothing is installed: a package is made of the model in PATH (TorchScript, a torch.export program, a
    MONAI bundle, a classifier of torchxrayvision, weights for Python code), whose manifest is to be filled in.
    """
    if template is not None:
        _make(template, path, name, version, output)
        return
    node = open_node(config)
    package, is_new = _use(node, lambda cycle: cycle.add(path))
    called = f"{package.identity.name} {package.identity.version}"
    click.echo(f"{called}, signed by {package.key_id}, is installed{'' if is_new else ' already'}.")
    if is_new:
        click.echo(f"Next: radnode models shadow {called}, or radnode models activate {called}.")


def _make(template: str, path: Path, name: str | None, version: str, output: Path | None) -> None:
    from radnode.detect.making import MARK, make_package  # noqa: PLC0415 (most uses of `add` make none)

    if name is None:
        raise click.UsageError("Say with --name what the model is to be called.")
    manifest = make_package(template, path, output or Path(name), name, version)
    click.echo(f"{manifest.parent} is made. Fill in what says {MARK} in {manifest}:")
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        if MARK in line and number > 1:
            click.echo(f"{number:>4}  {line.strip()}")
    click.echo(f"Next: radnode models sign {manifest.parent} --key KEY")


@models.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), help="An Ed25519 private key (PEM), or a new file."
)
@click.option("--key-id", help="Under which id it is trusted; without it the stem of the file.")
def sign(folder: Path, key: Path, key_id: str | None) -> None:
    """Sign the package in FOLDER, after writing the digests of its files into its manifest. No node is needed."""
    from radnode.detect.making import sign as sign_it  # noqa: PLC0415 (as above)

    is_new = not key.exists()
    sign_it(folder, key, key_id or key.stem)
    click.echo(f"{folder} is signed by {key_id or key.stem}.")
    if is_new:
        click.echo(
            f"The key is new: keep {key} away from the node. Next: radnode models trust {key.with_suffix('.pub')}"
        )


@models.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="KEY.pub")
@click.option("--key-id", help="Under which id; without it the stem of the file.")
@config_option
@accountable
def trust(path: Path, key_id: str | None, config: Path | None) -> None:
    """Trust an Ed25519 public key (PEM): packages that it signed can be added."""
    known = _use(open_node(config), lambda cycle: cycle.trust(path, key_id=key_id))
    click.echo(f"{known} is trusted.")


@models.command()
@click.argument("key_id", metavar="ID")
@config_option
@accountable
def distrust(key_id: str, config: Path | None) -> None:
    """Trust a key no longer: packages that it signed load no more, from the next start of the node on."""
    _use(open_node(config), lambda cycle: cycle.distrust(key_id))
    click.echo(f"{key_id} is trusted no longer.")


@models.command()
@_name
@_version
@config_option
@accountable
def activate(name: str, version: str, config: Path | None) -> None:
    """Make VERSION the active one, also while images come: what is analysed from then on is analysed by it."""
    node = open_node(config)
    before = _use(node, lambda cycle: cycle.activate(name, version))
    click.echo(f"{name} {version} is active; " + (f"{before} was." if before else "no version was."))
    if name not in node.rules.detectors:
        click.echo("No rule names it: add one ([[rules]], detect) and start the node again.", err=True)


@models.command()
@_name
@config_option
@accountable
def rollback(name: str, config: Path | None) -> None:
    """Undo the last activation; once more undoes the one before."""
    before, now = _use(open_node(config), lambda cycle: cycle.rollback(name))
    click.echo(f"{name} {now} is active; {before} was." if now else f"No version of {name} is active; {before} was.")
    if now is None:
        click.echo('Images that a rule shows to it get a report that says "failed".', err=True)


@models.command()
@_name
@click.argument("version", metavar="VERSION", required=False)
@click.option("--off", is_flag=True, help="Run no version in the shadow any more.")
@config_option
@accountable
def shadow(name: str, version: str | None, off: bool, config: Path | None) -> None:
    """Run VERSION beside the active one: what it says is kept and compared, and delivered to nobody."""
    if (version is None) != off:
        raise click.UsageError("Name a version, or --off.")
    before = _use(open_node(config), lambda cycle: cycle.shadow(name, version))
    now = f"{name} {version} runs in the shadow" if version else f"No version of {name} runs in the shadow"
    click.echo(f"{now}; {before} did." if before else f"{now}.")


@models.command()
@_name
@click.option("--version", help="A version that ran in the shadow; without it the one that does now.")
@click.option("--limit", default=10_000, show_default=True, type=click.IntRange(1), help="The newest so many images.")
@config_option
@json_option
@accountable
def compare(name: str, version: str | None, limit: int, config: Path | None, as_json: bool) -> None:
    """Compare what the version in the shadow said with what the active one said about the same images."""
    node = open_node(config)
    from radnode.detect.comparison import compare as figures  # noqa: PLC0415 (after the caller's role was seen)

    folder = None if version else node.catalogue().shadow(name)
    chosen = version or (folder.name if folder else None)
    if chosen is None:
        raise NotFoundError(f"No version of {name} runs in the shadow; name one with --version.")
    found = figures(node.stores, name, chosen, limit)
    node.record(events.COMMAND_USED, user(), command=f"models compare {name} {chosen}", count=found.images)
    node.settle_trail()
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"{name} {chosen} in the shadow of {', '.join(found.beside)}: {found.images} images")
    for reason, count in found.without_result.items():
        click.echo(f"{count} without a result: {reason}")
    counts = [("active: finding", found.both, found.only_active), ("active: none", found.only_shadow, found.neither)]
    print_table(("", "shadow: finding", "shadow: none"), counts, "")
    for title, value in (
        ("agreement", found.agreement),
        ("kappa", found.kappa),
        ("mean score, active", found.mean_active),
        ("mean score, shadow", found.mean_shadow),
        ("mean difference", found.mean_difference),
        ("mean absolute difference", found.mean_absolute_difference),
        ("largest difference", found.largest_difference),
        ("highest points apart, pixels", found.peaks_apart),
    ):
        click.echo(f"{title:<29} {'-' if value is None else format(value, '.4f')}")
    rows = [(item.result, f"{item.active:.4f}", f"{item.shadow:.4f}") for item in found.furthest]
    print_table(("FURTHEST APART", "ACTIVE", "SHADOW"), rows, "")


@models.command()
@click.argument("name", metavar="NAME", required=False)
@click.option("--days", default=7.0, show_default=True, type=click.FloatRange(0.0), help="The last so many days.")
@config_option
@json_option
def drift(name: str | None, days: float, config: Path | None, as_json: bool) -> None:
    """Compare the scores that the active versions gave with those of their cards; exit 1 where one has changed."""
    from radnode.detect.drift import drifts  # noqa: PLC0415 (few uses of `models` need it)

    node = open_node(config)
    names = [name] if name else node.rules.detectors
    found = drifts(node.catalogue(), node.engine, names, days, node.stores.clock())
    if as_json:
        print_json([{**asdict(item), "state": item.state} for item in found])
    else:
        rows = [
            (item.name, item.version, item.images, _figure(item.median), _figure(item.index), item.state)
            for item in found
        ]
        print_table(("NAME", "VERSION", "IMAGES", "MEDIAN SCORE", "STABILITY INDEX", "STATE"), rows, "no models")
    if any(item.state == "changed" for item in found):
        sys.exit(1)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@models.command()
@_name
@_version
@config_option
@accountable
def remove(name: str, version: str, config: Path | None) -> None:
    """Take a package off this node that is not in use; results, reports and the trail stay."""
    _use(open_node(config), lambda cycle: cycle.remove(name, version))
    click.echo(f"{name} {version} is removed.")


def _use(node: Node, step: Callable[[Lifecycle], T]) -> T:
    """Take one step in the life of a model; what came of it is in the trail when this returns or raises."""
    try:
        return step(node.lifecycle(user()))
    finally:
        node.settle_trail()
