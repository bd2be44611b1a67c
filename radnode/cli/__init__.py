"""The commands of radnode."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

import radnode
from radnode.errors import RadnodeError
from radnode.observe import quiet

_MODULES = {
    **dict.fromkeys(("init", "serve", "check"), "radnode.cli.serving"),
    **dict.fromkeys(("echo", "send"), "radnode.cli.peers"),
    "results": "radnode.cli.results",
    "jobs": "radnode.cli.jobs",
    "rules": "radnode.cli.rules",
    "models": "radnode.cli.models",
    "audit": "radnode.cli.audit",
    "keys": "radnode.cli.keys",
    "purge": "radnode.cli.purge",
    **dict.fromkeys(("backup", "restore"), "radnode.cli.backup"),
    "conformance": "radnode.cli.conformance",
}


class _Commands(click.Group):
    """The commands, each imported when it is asked for: an echo needs neither the database nor the trail."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the manual."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None."""
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(import_module(_MODULES[cmd_name]), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(radnode.__version__, prog_name="radnode")
def cli() -> None:
    """A DICOM node with embedded inference: sealed, durable, audited.

    \b
    A first node, and an image through it:
      radnode init var --pacs PACS@127.0.0.1:4242
      radnode check
      radnode serve
      radnode send film.dcm
      radnode results list
      radnode audit verify

    Every command takes -c FILE, the node's radnode.toml; without it $RADNODE_CONFIG, ./radnode.toml or
    var/radnode.toml is used.

    \b
    Exit codes: 0 all is well, 1 something is wrong and was said, 2 wrong usage,
    3 the configuration cannot be used, 4 refused.
    """


def main() -> None:
    """Run the command line; every error is one sentence on standard error."""
    os.umask(0o077)
    quiet()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RadnodeError as error:
        click.echo(f"radnode: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `radnode ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
