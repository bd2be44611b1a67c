"""The command: build the site, give the blows, let it settle, draw the balance."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
from support.crash import CrashNode
from support.failpoints import Failpoints
from support.node import free_port, wait_for
from support.pacs import TroubledOrthanc

from hammering import balance
from hammering.ledger import Ledger
from hammering.modality import Budget, Modality
from hammering.pacs import Trouble
from hammering.plan import Blow, draw
from hammering.site import MODALITIES, make_node
from hammering.striker import Striker
from radnode.failpoints import PLACES

SETTLE_SECONDS = 300.0
TRIES = 4  # of a place by which nobody came in time


@click.command()
@click.option("--kills", default=100, show_default=True, type=click.IntRange(len(PLACES)), help="How often kill -9.")
@click.option("--seed", default=1, show_default=True, help="The same seed kills the same in the same order.")
@click.option("--seconds", type=float, help="Give no more blows after this time, however many are left.")
@click.option("--keep", is_flag=True, help="Keep node, PACS, ledger and logs; a run that fails always keeps them.")
@click.option("--lose", is_flag=True, help="The PACS also loses what it has stored (needs storage commitment).")
def hammer(kills: int, seed: int, seconds: float | None, keep: bool, lose: bool) -> None:
    """Push images from several modalities into a node that is killed, toward a PACS in trouble; draw the balance.

    Exit status 1 unless every acknowledged image has exactly one current report at the PACS, the node is sound, and
    (without --seconds) somebody was killed at every failpoint. docs/testing.md explains it.
    """
    folder = Path(tempfile.mkdtemp(prefix="radnode-hammer-"))
    click.echo(f"{folder}: {kills} kills, seed {seed}")
    passed = False
    try:
        passed = Run(folder, seed, loses=lose).go(kills, seconds)
    finally:
        if passed and not keep:
            shutil.rmtree(folder)
        else:
            click.echo(f"kept: {folder} (ledger.jsonl, logs, node, pacs)")
    sys.exit(0 if passed else 1)


class Run:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, seed: int, *, loses: bool) -> None:
        self._folder = folder
        self._chance = random.Random(seed)  # noqa: S311 (choices that can be repeated, no secret)
        self._loses = loses
        self._began = time.monotonic()
        self._failpoints = Failpoints(folder / "failpoints")
        self._killed: Counter[str] = Counter()

    def go(self, kills: int, seconds: float | None) -> bool:
        """Do all of it and print the balance; return whether it is even."""
        port = free_port()
        with ExitStack() as stack:
            node = stack.enter_context(make_node(self._folder / "node", port, self._failpoints, commit=self._loses))
            pacs = stack.enter_context(TroubledOrthanc(self._folder / "pacs", port, node.folder / "pki", node.port))
            ledger = Ledger(self._folder / "ledger.jsonl")
            stack.callback(ledger.close)
            budget = Budget()
            striker = Striker(node, self._failpoints, ledger, budget, self._folder / "logs")
            striker.start()
            modalities = [
                Modality(node, identity, self._folder / identity[0], ledger, budget, self._chance.randrange(1 << 30))
                for identity in MODALITIES
            ]
            trouble = Trouble(pacs, node, self._chance.randrange(1 << 30), loses=self._loses)
            for thread in (*modalities, trouble):
                thread.start()
            self._strike(striker, draw(kills, self._chance), ledger, seconds)
            click.echo(f"{self._elapsed()}  no more blows; settling")
            trouble.end()
            budget.close()
            for modality in modalities:
                modality.join(SETTLE_SECONDS)
            if any(modality.is_alive() for modality in modalities):
                raise click.ClickException("A modality waits for its answers in vain.")
            node.await_idle(SETTLE_SECONDS)
            wait_for(lambda: balance.reported(pacs) >= len(ledger.acknowledged), 30, "every report is at the PACS")
            drawn = balance.draw_up(ledger, pacs)
            status = node.stop()
            problem = f"stopped with {status}" if status else _unsound(node)
        unhit = sorted(set(PLACES) - set(self._failpoints.hits))
        for line in balance.table(drawn, ledger):
            click.echo(line)
        hits = self._failpoints.hits
        for title, counts in (("killed", self._killed), ("at failpoints", hits), ("trouble", trouble.counts)):
            click.echo(balance.line(title, counts.total(), balance.listed(counts)))
        click.echo(balance.line("failpoints never hit", len(unhit), ", ".join(unhit)))
        click.echo(balance.line("blows that met nothing", striker.missed, ""))
        click.echo(balance.line("node", problem or "sound", f"{striker.starts} starts, {self._elapsed().strip()}"))
        return drawn.is_even and problem is None and (seconds is not None or not unhit)

    def _strike(self, striker: Striker, blows: list[Blow], ledger: Ledger, seconds: float | None) -> None:
        """Give the blows; those that met nobody at their place come again at the end."""
        total, tries = len(blows), Counter[str]()
        while blows and (seconds is None or time.monotonic() - self._began < seconds):
            blow = blows.pop(0)
            if striker.strike(blow):
                self._killed[blow.target] += 1
                number = f"{self._killed.total():>4}/{total}"
                click.echo(f"{self._elapsed()} {number}  {blow!s:<40} acknowledged {len(ledger.acknowledged)}")
            elif blow.place is not None and tries[blow.place] < TRIES:
                tries[blow.place] += 1
                blows.append(blow)

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:7.1f} s"


def _unsound(node: CrashNode) -> str | None:
    """Return what is wrong with a node that has stopped, if anything."""
    try:
        node.assert_sound()
    except AssertionError as error:
        return str(error)
    return None
