"""The commands of scripts/bench."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks import ROOT
from benchmarks.servers import RECIPES, Recipe


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
def receive(quick: bool, rounds: int, only: str, scenarios: str, variants: tuple[str, ...], ct: int, dx: int) -> None:
    """Receive over mutual TLS: radnode, dcmtk, Orthanc, stock pynetdicom and the raw ceilings."""
    from benchmarks.receive import SCENARIOS, Sizes, measure  # noqa: PLC0415

    recipes = [RECIPES[name] for name in only.split(",")] + [_variant(text) for text in variants]
    chosen = [one for one in SCENARIOS if not scenarios or one.name in scenarios.split(",")]
    sizes = Sizes(20, 4, 1) if quick else Sizes(ct, dx, rounds)
    with work_folder() as folder:
        measure(recipes, sizes, folder, chosen, click.echo)


@cli.command()
@click.argument("entries", default=1_000_000, type=click.IntRange(1))
def audit(entries: int) -> None:
    """Record, sequence, restart and verify an audit trail of ENTRIES (default 1,000,000; 2.6 kB of disk for each)."""
    from benchmarks.audit import measure  # noqa: PLC0415

    measure(entries)


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
