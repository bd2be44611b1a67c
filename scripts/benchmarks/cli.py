"""The commands of scripts/bench."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import click

from benchmarks import ROOT
from benchmarks.servers import RECIPES, Recipe

_T = TypeVar("_T")


@click.group()
def cli() -> None:
    """Measure the node beside its peers, on loopback; docs/benchmarks.md explains every row."""


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
    from benchmarks.client import PushFailed  # noqa: PLC0415
    from benchmarks.receive import SCENARIOS, Sizes, measure  # noqa: PLC0415

    recipes = [*_named(only, RECIPES), *(_variant(text) for text in variants)]
    ways = {scenario.name: scenario for scenario in SCENARIOS}
    chosen = _named(scenarios, ways) if scenarios else list(SCENARIOS)
    sizes = Sizes(min(ct, 20), min(dx, 4), 1) if quick else Sizes(ct, dx, rounds)
    with work_folder() as folder:
        try:
            samples = measure(recipes, sizes, folder, chosen, lambda line: click.echo(line, err=True))
        except (PushFailed, RuntimeError) as error:
            raise click.ClickException(str(error)) from error
    lines = [
        *machine.describe(),
        f"medians over {sizes.rounds} rounds; {sizes.ct} CT or {sizes.dx} DX in each measurement",
    ]
    if quick:
        lines.append("quick: shows that it works and measures nothing")
    report = table.render(table.Samples(samples), recipes, lines)
    click.echo(report)
    if page is not None:
        table.write(report, page)
    if samples_file is not None:
        samples_file.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))


@cli.command()
@click.argument("entries", default=1_000_000, type=click.IntRange(1))
def audit(entries: int) -> None:
    """Record, sequence, restart and verify an audit trail of ENTRIES (default 1,000,000; 2.6 kB of disk for each)."""
    from benchmarks.audit import measure  # noqa: PLC0415

    measure(entries)


def _named(names: str, known: Mapping[str, _T]) -> list[_T]:
    """Return what is known by these names, which commas separate."""
    for name in names.split(","):
        if name not in known:
            raise click.UsageError(f"There is no {name!r}; there are {', '.join(known)}.")
    return [known[name] for name in names.split(",")]


def _variant(text: str) -> Recipe:
    name, _, pairs = text.partition(":")
    environment = dict(pair.split("=", 1) for pair in pairs.split(",") if pair)
    return Recipe(name, RECIPES["radnode"].keeps, "radnode", environment)


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a folder on the disk of this checkout, since /tmp may be memory, and remove it afterwards."""
    (ROOT / "var").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "var"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
