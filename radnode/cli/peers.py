"""echo, send: the node as a client, for trying peers and this node itself."""

from __future__ import annotations

import functools
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import ValidationError

from radnode.cli.common import AETitleParam, config_option
from radnode.configuration import find_config, load_settings
from radnode.errors import DestinationRefused, DestinationUnavailable, MalformedDataSet
from radnode.network.contexts import MAX_CONTEXTS
from radnode.network.storage_scu import echo as echo_scu
from radnode.network.storage_scu import open_destination
from radnode.network.tls import client_context
from radnode.part10 import read_file_meta
from radnode.settings import DestinationSettings, Settings

THIS_NODE = "this node"


@dataclass(frozen=True, slots=True)
class Call:
    """Whom a command calls, and as whom."""

    destination: DestinationSettings
    context: ssl.SSLContext | None
    calling_ae_title: str
    timeout_seconds: float
    name: str | None  # how errors call it, where it is no destination of the configuration


_OPTIONS = (
    config_option,
    click.option("--to", "where", metavar="NAME|HOST:PORT", help="A destination or an address; else this node."),
    click.option("--called", type=AETitleParam(), help="Called AE title; else the destination's."),
    click.option("--ae", "calling", type=AETitleParam(), help="Calling AE title; else that of this node."),
    click.option("--certificate", type=click.Path(path_type=Path), help="Client certificate (PEM)."),
    click.option("--key", type=click.Path(path_type=Path), help="Its key (PEM)."),
    click.option("--plain", is_flag=True, help="Without TLS."),
)


def calling(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say whom to call, and pass them on as one `Call`."""

    @functools.wraps(command)
    def with_call(
        *,
        config: Path | None,
        where: str | None,
        called: str | None,
        calling: str | None,
        certificate: Path | None,
        key: Path | None,
        plain: bool,
        **rest: object,
    ) -> None:
        settings = load_settings(find_config(config))
        destination = _destination(settings, where, called, plain)
        settings = _with_certificate(settings, certificate, key)
        call = Call(
            destination,
            client_context(settings) if destination.tls else None,
            calling or settings.node.ae_title,
            settings.deliver.timeout_seconds,
            THIS_NODE if where is None else None if settings.destination(where) else where,
        )
        try:
            command(call, **rest)
        except DestinationUnavailable as error:
            if call.name == THIS_NODE and isinstance(error.__cause__, ConnectionRefusedError):
                sentence = f"{str(error).removesuffix('.')}; is it running? `radnode serve`."
                raise DestinationUnavailable(sentence) from error
            raise

    for option in reversed(_OPTIONS):
        with_call = option(with_call)
    return with_call


@click.command()
@calling
def echo(call: Call) -> None:
    """Send a C-ECHO and say how long the answer took."""
    destination = call.destination
    milliseconds = echo_scu(
        destination,
        context=call.context,
        calling_ae_title=call.calling_ae_title,
        timeout_seconds=call.timeout_seconds,
        name=call.name,
    )
    click.echo(f"{destination.ae_title}@{destination.host}:{destination.port} answered in {milliseconds:.1f} ms")


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@calling
def send(call: Call, paths: Sequence[Path]) -> None:
    """Send DICOM files, or all in a folder, as they are. Exit 1 when one was not taken."""
    files = [file for path in paths for file in _files(path)]
    title = call.destination.ae_title
    refused: list[str] = []
    with (
        click.progressbar(files, label=f"to {title}", file=sys.stderr, hidden=not sys.stderr.isatty()) as progress,
        open_destination(
            call.destination,
            context=call.context,
            calling_ae_title=call.calling_ae_title,
            objects=_offers(files),
            timeout_seconds=call.timeout_seconds,
            name=call.name,
        ) as association,
    ):
        for file in progress:
            try:
                association.store(file.read_bytes())
            except DestinationRefused as error:
                refused.append(f"{file}: {error}")
    for line in refused:
        click.echo(line, err=True)
    click.echo(f"{len(files) - len(refused)} of {len(files)} objects sent to {title}")
    if refused:
        sys.exit(1)


def _destination(settings: Settings, where: str | None, called: str | None, plain: bool) -> DestinationSettings:
    """Return the destination that the options name."""
    own = settings.node
    known = None if where is None else settings.destination(where)
    if known is not None:
        return known if called is None else known.model_copy(update={"ae_title": called})
    host, _, port = (where or f"{own.bind_address}:{own.port}").rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"{where!r} is neither a destination of this node nor HOST:PORT.")
    host = "127.0.0.1" if host == "0.0.0.0" else host.strip("[]")  # noqa: S104 (an address to call, not to bind)
    title = called or own.ae_title
    try:
        return DestinationSettings(name="peer", ae_title=title, host=host, port=int(port), tls=not plain)
    except ValidationError as error:
        raise click.UsageError(f"{where!r} is no address.") from error


def _with_certificate(settings: Settings, certificate: Path | None, key: Path | None) -> Settings:
    """Return the settings with another client certificate, where one is named."""
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key go together.")
    if certificate is None or key is None:
        return settings
    tls = settings.tls.model_copy(update={"certificate": certificate.resolve(), "key": key.resolve()})
    return settings.model_copy(update={"tls": tls})


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(item for item in path.rglob("*") if item.is_file() and _is_part10(item))
    else:
        yield path


def _is_part10(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _offers(files: Sequence[Path]) -> list[bytes]:
    """Return one object of each SOP class and transfer syntax among the files."""
    found: dict[tuple[str, str], bytes] = {}
    for file in files:
        part10 = file.read_bytes()
        try:
            meta = read_file_meta(part10)
        except MalformedDataSet as error:
            raise click.UsageError(f"{file}: {error}") from error
        found.setdefault((meta.sop_class_uid, meta.transfer_syntax_uid), part10)
    if not found:
        raise click.UsageError("There is no DICOM file there.")
    if len(found) > MAX_CONTEXTS:
        raise click.UsageError(f"More than {MAX_CONTEXTS} kinds of objects; send them in parts.")
    return list(found.values())
