"""What the commands share: the -c option, the node, the acting user, JSON and tables."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from radnode.configuration import find_config, load_settings
from radnode.errors import RadnodeError
from radnode.settings import ae_title

if TYPE_CHECKING:
    from radnode.audit.events import Actor
    from radnode.node import Node


MAX_REASON = 400  # characters
MAX_KEY = 65536  # bytes
_REASON, _BREAK_GLASS, _HELD, _ACTOR = "radnode.reason", "radnode.break_glass", "radnode.held", "radnode.actor"


class AETitleParam(click.ParamType[str]):
    """An AE title, checked as the configuration checks it."""

    name = "AE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the title without the spaces around it."""
        try:
            return ae_title(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


config_option = click.option(
    "-c", "--config", "config", type=click.Path(path_type=Path), help="The node's radnode.toml.", metavar="FILE"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_node(config: Path | None) -> Node:
    """Return the node of a configuration.

    Raises:
        ConfigError: there is no such file, or it cannot be used.
        RefusedError: the caller may not use the command that runs.
    """
    from radnode.node import Node  # noqa: PLC0415 (echo and send need none)
    from radnode.permission import admit  # noqa: PLC0415

    context = click.get_current_context()
    node = Node(load_settings(find_config(config)), reason=context.meta.get(_REASON))
    glass, held = context.meta.get(_BREAK_GLASS, False), context.meta.get(_HELD)
    context.meta[_ACTOR] = admit(node, _command(context), break_glass=glass, held=held)
    return node


def accountable(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that needs a role the options that say why it is used; `open_node` heeds them."""
    reason = click.option(
        "--reason",
        expose_value=False,
        callback=_keep(_REASON, _checked_reason),
        metavar="TEXT",
        help="Why: sealed into the audit entries of this use.",
    )
    glass = click.option(
        "--break-glass",
        is_flag=True,
        expose_value=False,
        callback=_keep(_BREAK_GLASS, bool),
        help="In an emergency: read without a role. Needs --reason, and is an alert of the trail.",
    )
    holder = click.option(
        "--with-certificate",
        "holder",
        type=(click.Path(path_type=Path, dir_okay=False), click.File("rb")),
        expose_value=False,
        callback=_keep(_HELD, _read_pair),
        metavar="CERT KEY",
        help="Act as the holder of this certificate, with its roles; KEY may be - for standard input.",
    )
    return reason(glass(holder(command)))


def _keep(name: str, check: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            context.meta[name] = check(value)

    return callback


def _checked_reason(value: str) -> str:
    reason = value.strip()
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise click.BadParameter(f"a reason is one line of 1 to {MAX_REASON} characters.")
    return reason


def _read_pair(value: tuple[Path, BinaryIO]) -> tuple[Path, bytes]:
    return value[0], value[1].read(MAX_KEY)


def _command(context: click.Context) -> str:
    """Return the words of the command that runs, without the program's name."""
    words: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        words.insert(0, at.info_name or "")
        at = at.parent
    return " ".join(words)


def user() -> Actor:
    """Return who runs the command, as `open_node` has found."""
    actor: Actor = click.get_current_context().meta[_ACTOR]
    return actor


def print_json(value: object) -> None:
    """Print a value as JSON, one row a line where it is a list."""
    if isinstance(value, list):
        click.echo("[" + ",\n ".join(json.dumps(row) for row in value) + "]")
    else:
        click.echo(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows under a header, columns as wide as they need; `empty` where there are none."""
    if not rows:
        click.echo(empty)
        return
    table = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def local_time(moment: float) -> str:
    """Return epoch seconds as UTC text."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read.

    Raises:
        RadnodeError: it exists already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise RadnodeError(f"{path} exists already; choose another name.") from error
    except OSError as error:
        raise RadnodeError(f"{path} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
