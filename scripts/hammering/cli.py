"""The command: build the site, give the blows, let it settle, draw the balance."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
from pynetdicom.fsm import InvalidEventError
from support.committing import Requester
from support.crash import CrashNode
from support.failpoints import Failpoints
from support.node import free_port
from support.pacs import TroubledOrthanc

from hammering import balance
from hammering.asker import Asker
from hammering.ledger import Ledger
from hammering.modality import Budget, Modality
from hammering.pacs import Trouble
from hammering.plan import Blow, draw
from hammering.site import ASKER, MODALITIES, make_node
from hammering.striker import Striker
from radnode.failpoints import PLACES

SETTLE_SECONDS = 120.0  # how long what waits may stay as much as it is
ANSWER_SECONDS = 300.0  # how long a modality may take until all that it began is answered
TRIES = 4  # of a place by which nobody came in time


@click.command()
@click.option("--kills", default=100, show_default=True, type=click.IntRange(len(PLACES)), help="How often kill -9.")
@click.option("--seed", default=1, show_default=True, help="The same seed kills the same in the same order.")
@click.option("--seconds", type=float, help="Give no more blows after this time, however many are left.")
@click.option("--keep", is_flag=True, help="Keep node, PACS, ledger and logs; a run that fails always keeps them.")
@click.option("--lose/--no-lose", default=True, help="Whether the PACS also loses what it has not committed.  [lose]")
def hammer(kills: int, seed: int, seconds: float | None, keep: bool, lose: bool) -> None:
    """Push images from several modalities into a node that is killed, toward a PACS in trouble; draw the balance.

    Exit status 1 unless every acknowledged image has exactly one current report at the PACS, is there itself where a
    rule forwards it, and is committed when a modality asks, the node is sound, and (without --seconds) somebody was
    killed at every failpoint. docs/testing.md explains it.
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
        self._broken: list[str] = []  # threads of this program that ended with an error: what they saw is not known
        threading.excepthook = self._broke

    def go(self, kills: int, seconds: float | None) -> bool:
        """Do all of it and print the balance; return whether it is even."""
        port, asker_port = free_port(), free_port()
        with ExitStack() as stack:
            node = stack.enter_context(make_node(self._folder / "node", port, asker_port, self._failpoints))
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
            pki, heard = node.folder / "pki", ledger.record_commitment
            requester = stack.enter_context(Requester(ASKER[0], pki, ASKER[1], node.port, asker_port, heard))
            asker = Asker(requester, ledger, self._chance.randrange(1 << 30))
            trouble = Trouble(pacs, node, self._chance.randrange(1 << 30), loses=self._loses)
            for thread in (*modalities, asker, trouble):
                thread.start()
            self._strike(striker, draw(kills, self._chance), ledger, seconds)
            click.echo(f"{self._elapsed()}  no more blows; settling")
            trouble.end()
            budget.close()
            asker.end()
            for thread in (*modalities, asker):
                thread.join(ANSWER_SECONDS)
                if thread.is_alive():
                    raise click.ClickException(f"{thread.name} waits for its answers in vain.")
            unsettled = _unsettled(node, ledger)
            drawn = balance.draw_up(ledger, balance.objects_of(pacs))
            status = node.stop()
            problem = f"stopped with {status}" if status else unsettled or _unsound(node)
        unhit = sorted(set(PLACES) - set(self._failpoints.hits))
        for line in balance.table(drawn, ledger):
            click.echo(line)
        hits = self._failpoints.hits
        for title, counts in (("killed", self._killed), ("at failpoints", hits), ("trouble", trouble.counts)):
            click.echo(balance.line(title, counts.total(), balance.listed(counts)))
        click.echo(balance.line("failpoints never hit", len(unhit), ", ".join(unhit)))
        click.echo(balance.line("blows that met nothing", striker.missed, ""))
        click.echo(balance.line("threads that broke", len(self._broken), ", ".join(self._broken)))
        click.echo(balance.line("node", problem or "sound", f"{striker.starts} starts, {self._elapsed().strip()}"))
        return drawn.is_even and problem is None and not self._broken and (seconds is not None or not unhit)

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

    def _broke(self, broken: threading.ExceptHookArgs) -> None:
        """Remember a thread that ended with an error, and say which.

        Not one of pynetdicom's whose peer released while it answered: that association is over, and nothing else is.
        """
        if broken.exc_type is InvalidEventError:
            return
        self._broken.append(f"{broken.thread and broken.thread.name}: {broken.exc_type.__name__}")
        threading.__excepthook__(broken)

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:7.1f} s"


def _unsettled(node: CrashNode, ledger: Ledger) -> str | None:
    """Wait until nothing waits, for as long as it gets less; return what waits in the end."""
    least, since = _waiting(node, ledger), time.monotonic()
    while least and time.monotonic() - since < SETTLE_SECONDS:
        time.sleep(0.5)
        if (left := _waiting(node, ledger)) < least:
            least, since = left, time.monotonic()
    return f"not settled: {dict(node.jobs())}" if least else None


def _waiting(node: CrashNode, ledger: Ledger) -> int:
    """Count jobs, series that would become one, and answers that are owed; the end of a job may be a series, which
    becomes a job: so jobs are looked at before and after."""
    jobs = _unfinished(node)
    series = len(node.query("SELECT 1 FROM series WHERE due IS NOT NULL"))
    return max(jobs, _unfinished(node)) + series + len(ledger.unanswered)


def _unfinished(node: CrashNode) -> int:
    return sum(count for (_, state), count in node.jobs().items() if state in {"ready", "leased"})


def _unsound(node: CrashNode) -> str | None:
    """Return what is wrong with a node that has stopped, if anything."""
    try:
        node.assert_sound()
    except AssertionError as error:
        return str(error)
    return None
