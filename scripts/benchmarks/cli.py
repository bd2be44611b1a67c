"""The commands of scripts/bench."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import click

from benchmarks import ROOT
from benchmarks.client import PushFailed
from benchmarks.servers import RECIPES, Recipe

_T = TypeVar("_T")


def _environment(_context: object, _option: object, pairs: Sequence[str]) -> dict[str, str]:
    """Return KEY=VALUE pairs as variables of the environment (a callback of click)."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


_settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_environment,
    metavar="RADNODE_SECTION__KEY=VALUE",
    help="A setting of the node; may be repeated.",
)


@click.group()
def cli() -> None:
    """Measure the node beside its peers, on loopback; docs/benchmarks.md explains every row."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers are ended on the way out


@cli.command()
@click.option("--quick", is_flag=True, help="One round of few objects: to see that it works, not to measure.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Medians are over these.")
@click.option("--only", default=",".join(RECIPES), show_default=True, help="Servers, separated by commas.")
@click.option("--scenarios", default="", help="Ways to send, separated by commas; all when left out.")
@click.option("--variant", "variants", multiple=True, metavar="NAME:KEY=VALUE,...", help="One more radnode.")
@click.option("--ct", default=400, show_default=True, type=click.IntRange(1), help="CT images for each measurement.")
@click.option("--dx", default=24, show_default=True, type=click.IntRange(1), help="10 MB films for each measurement.")
@click.option("--write", "page", type=click.Path(exists=True, path_type=Path), help="Put the report into this page.")
@click.option("--json", "samples_file", type=click.Path(path_type=Path), help="Write every sample here.")
def receive(
    quick: bool,
    rounds: int,
    only: str,
    scenarios: str,
    variants: tuple[str, ...],
    ct: int,
    dx: int,
    page: Path | None,
    samples_file: Path | None,
) -> None:
    """Receive over mutual TLS: radnode, dcmtk, Orthanc, stock pynetdicom and the raw ceilings."""
    from benchmarks import machine, table  # noqa: PLC0415
    from benchmarks.receive import SCENARIOS, Sizes, measure  # noqa: PLC0415

    recipes = [*_named(only, RECIPES), *(_variant(text) for text in variants)]
    ways = {scenario.name: scenario for scenario in SCENARIOS}
    chosen = _named(scenarios, ways) if scenarios else list(SCENARIOS)
    sizes = Sizes(min(ct, 20), min(dx, 4), 1) if quick else Sizes(ct, dx, rounds)
    lines = [
        *machine.describe(),
        f"medians over {sizes.rounds} rounds; {sizes.ct} CT or {sizes.dx} DX in each measurement",
    ]
    samples = _run(lambda folder: measure(recipes, sizes, folder, chosen, lambda line: click.echo(line, err=True)))
    if quick:
        lines.append("quick: shows that it works and measures nothing")
    page_text = table.render(table.Samples(samples), recipes, lines)
    click.echo(page_text)
    if page is not None:
        table.write(page_text, page)
    if samples_file is not None:
        samples_file.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))


@cli.command()
@click.option(
    "--images", default=20_000, show_default=True, type=click.IntRange(1), help="CT images; 0.5 MB of disk each."
)
@_settings_option
def memory(images: int, settings: dict[str, str]) -> None:
    """Memory of the listener: after 500 and after many CT images, and under 20 associations of 10 MB films."""
    from benchmarks.memory import measure  # noqa: PLC0415

    _run(lambda folder: measure(images, settings, folder, click.echo))


@cli.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long the strangers stay.")
@_settings_option
def silent(seconds: float, settings: dict[str, str]) -> None:
    """Push 200 CT images alone, and beside 500 silent clients and 50 that drip a byte a second."""
    from benchmarks.silent import measure  # noqa: PLC0415

    _run(lambda folder: measure(seconds, settings, folder, click.echo))


@cli.command()
@click.option("--images", default=1000, show_default=True, type=click.IntRange(1), help="CT images.")
@click.option("--associations", default=1, show_default=True, type=click.IntRange(1, 10))
@_settings_option
def profile(images: int, associations: int, settings: dict[str, str]) -> None:
    """Where a received CT's time goes in the listener, by layer and function."""
    from benchmarks.profile import measure  # noqa: PLC0415

    _run(lambda folder: measure(images, associations, settings, folder, click.echo))


@cli.command()
@click.argument("entries", default=1_000_000, type=click.IntRange(1))
def audit(entries: int) -> None:
    """Record, sequence, restart and verify an audit trail of ENTRIES (default 1,000,000; 2.6 kB of disk for each)."""
    from benchmarks.audit import measure  # noqa: PLC0415

    measure(entries)


@cli.command()
@click.option(
    "--finished", default=10_000_000, show_default=True, type=click.IntRange(1), help="Jobs; 160 bytes of disk each."
)
@click.option("--quick", is_flag=True, help="Few jobs: to see that it works, not to measure.")
def queue(finished: int, quick: bool) -> None:
    """Lease and finish jobs beside finished ones and in an empty table; pick-up by a sleeper; who waits for whom."""
    from benchmarks.queue import Sizes, measure  # noqa: PLC0415

    sizes = Sizes(1, 16, 10) if quick else Sizes()
    _run(lambda folder: measure(finished, sizes, folder, click.echo))


@cli.command()
@click.option("--reports", default=5000, show_default=True, type=click.IntRange(1), help="Reports that wait.")
@click.option("--away", default=20.0, show_default=True, help="Seconds that delivery finds nobody.")
def outbox(reports: int, away: float) -> None:
    """A PACS that comes back: until every report that waits is there once, and what arriving images pay meanwhile."""
    from benchmarks.outbox import measure  # noqa: PLC0415

    _run(lambda folder: measure(reports, away, folder, click.echo))


@cli.command()
@click.option("--rounds", default=300, show_default=True, type=click.IntRange(2), help="Reports of each kind.")
def report(rounds: int) -> None:
    """Build and encode reports: of one image, with ten findings, on four hundred images; beside highdicom."""
    from benchmarks.report import measure  # noqa: PLC0415

    measure(rounds, click.echo)


@cli.command()
@click.option("--films", default=200, show_default=True, type=click.IntRange(2), help="Films of each row.")
def latency(films: int) -> None:
    """One X-ray, last byte in to its report at the PACS, less the model's forward time; with and without picture."""
    from benchmarks.latency import measure  # noqa: PLC0415

    _run(lambda folder: measure(films, folder, click.echo))


@cli.command()
@click.option("--images", default=120, show_default=True, type=click.IntRange(16), help="Films for each measurement.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Medians are over these.")
@click.option("--quick", is_flag=True, help="Few films, once, without a push: to see that it works, not to measure.")
def detect(images: int, rounds: int, quick: bool) -> None:
    """Films a second through the worker, beside a bare torch loop over the same films, alone and with a push beside."""
    from benchmarks.detect import measure  # noqa: PLC0415

    images, rounds = (16, 1) if quick else (images, rounds)
    _run(lambda folder: measure(images, rounds, folder, click.echo, is_quick=quick))


def _named(names: str, known: Mapping[str, _T]) -> list[_T]:
    """Return what is known by these names, which commas separate."""
    for name in names.split(","):
        if name not in known:
            raise click.UsageError(f"There is no {name!r}; there are {', '.join(known)}.")
    return [known[name] for name in names.split(",")]


def _variant(text: str) -> Recipe:
    name, _, pairs = text.partition(":")
    environment = _environment(None, None, [pair for pair in pairs.split(",") if pair])
    return Recipe(name, RECIPES["radnode"].keeps, "radnode", environment)


def _run(measure: Callable[[Path], _T]) -> _T:
    """Measure in a folder of its own; what went wrong is said in a line."""
    with _work_folder() as folder:
        try:
            return measure(folder)
        except (PushFailed, RuntimeError, OSError) as error:
            raise click.ClickException(str(error)) from error


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Make a folder on the disk of this checkout, since /tmp may be memory, and remove it afterwards."""
    (ROOT / "var").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "var"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
