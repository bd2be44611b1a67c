"""`scripts/bench receive`: every server in turn, round after round, in another order each time.

Before each measurement the disk is brought to rest, as much memory as will be written is touched (the first write to
cold memory of a virtual machine costs ten times the second), and the server gets the same work once, shorter.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import objects
from benchmarks.client import Clients, PushFailed, Sent
from benchmarks.servers import TUNED, Recipe, Server, require_disk
from radnode.pki import make_test_pki

STORESCU = "/usr/bin/storescu"
ASSOCIATIONS = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to send: `kind` of object and number of associations, or Debian's storescu with this environment."""

    name: str
    title: str
    kind: str
    associations: int
    storescu: bool = False
    tuned: bool = True

    def suits(self, recipe: Recipe) -> bool:
        """Say whether it is measured with that server."""
        if self.storescu:  # shipped with shipped, tuned with tuned; radnode has no such switch
            programs = {"radnode": "radnode", "orthanc": "orthanc" if self.tuned else "orthanc-shipped"}
            return recipe.program == "radnode" or recipe.name == programs.get(recipe.program)
        return not (self.kind == "dx" and recipe.name == "raw-stream")


SCENARIOS = (
    Scenario("ct1", "CT, 1 association", "ct", 1),
    Scenario("ct4", f"CT, {ASSOCIATIONS} associations", "ct", ASSOCIATIONS),
    Scenario("dx1", "10 MB DX, 1 association", "dx", 1),
    Scenario("dx4", f"10 MB DX, {ASSOCIATIONS} associations", "dx", ASSOCIATIONS),
    Scenario("storescu", "CT, Debian's storescu as shipped", "ct", 1, storescu=True, tuned=False),
    Scenario("storescu-tuned", "CT, Debian's storescu, TCP_NODELAY=1", "ct", 1, storescu=True),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many objects one measurement sends, and how many rounds there are."""

    ct: int = 400
    dx: int = 24
    rounds: int = 5

    def count(self, kind: str) -> int:
        """Return the objects of one measurement."""
        return self.ct if kind == "ct" else self.dx


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; CPU seconds of the server are those until it rests again."""

    server: str
    scenario: str
    round: int
    megabytes_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_seconds_per_gigabyte: float
    peak_megabytes: float
    tls: str


def measure(
    recipes: Sequence[Recipe],
    sizes: Sizes,
    folder: Path,
    scenarios: Sequence[Scenario] = SCENARIOS,
    say: Callable[[str], None] = print,
) -> list[Sample]:
    """Start all servers, measure, end them, and return every sample.

    Raises:
        PushFailed: a server answered anything but success.
        RuntimeError: a server did not start, or the disk is too full.
    """
    kinds = {kind.name: kind for kind in (objects.ct(), objects.dx())}
    require_disk(
        folder,
        sum(
            sizes.rounds * sizes.count(scenario.kind) * len(kinds[scenario.kind].data_sets[0])
            for scenario in scenarios
            for recipe in recipes
            if scenario.suits(recipe) and recipe.keeps_objects
        ),
    )
    pki = folder / "pki"
    make_test_pki(pki)
    samples = []
    with ExitStack() as stack:
        clients = stack.enter_context(Clients(ASSOCIATIONS, list(kinds.values())))
        servers = [stack.enter_context(Server(recipe, folder, pki)) for recipe in recipes]
        for number in range(sizes.rounds):
            for shift, scenario in enumerate(scenarios):
                turn = (number + shift) % len(servers)
                for server in servers[turn:] + servers[:turn]:
                    if not scenario.suits(server.recipe):
                        continue
                    count = sizes.count(scenario.kind)
                    sender = _Sender(clients, server, scenario, kinds[scenario.kind], folder)
                    sample = _sample(sender, count, number)
                    say(f"{number + 1}/{sizes.rounds} {scenario.name:<15}{server.name:<17}{_told(sample)}")
                    samples.append(sample)
    return samples


class _Sender:
    """One scenario against one server."""

    def __init__(self, clients: Clients, server: Server, scenario: Scenario, kind: objects.Kind, folder: Path) -> None:
        self.server = server
        self.scenario = scenario
        self._clients = clients
        self.kind = kind
        self._folder = folder / "outgoing"

    def push(self, count: int) -> Sent:
        """Send `count` objects, with our client or with storescu."""
        if not self.scenario.storescu:
            target, associations = self.server.target, self.scenario.associations
            return self._clients.push(target, self.kind.name, max(count, associations), associations)
        files = objects.write_files(self.kind, self._folder, count)
        pki = self.server.target.pki
        tls = ["+tls", pki / "modality.key", pki / "modality.crt", "+cf", pki / "ca.crt"]
        titles = ["-aet", "MODALITY1", "-aec", self.server.target.called or ""]
        command = [STORESCU, *tls, *titles, "127.0.0.1", str(self.server.target.port), *files]
        environment = {name: value for name, value in os.environ.items() if name not in TUNED}
        begun = time.monotonic()
        done = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            env={**environment, **(TUNED if self.scenario.tuned else {})},
            check=False,
        )
        ended = time.monotonic()
        for path in files:
            path.unlink()
        self._folder.rmdir()
        if done.returncode or done.stderr:
            raise PushFailed(f"storescu ended with {done.returncode}: {done.stderr[-500:]}")
        sent = sum(len(self.kind.data_sets[number % len(self.kind.data_sets)]) for number in range(count))
        return Sent(begun, ended, sent, (), "")


def _sample(sender: _Sender, count: int, number: int) -> Sample:
    tree = sender.server.tree
    try:
        sender.push(max(count // 10, 1))
        sender.server.forget()
        os.sync()
        warm_memory(2 * count * len(sender.kind.data_sets[0]))
        before = tree.settle()
        sent = sender.push(count)
        cpu = tree.settle() - before
    except PushFailed as error:
        raise PushFailed(f"{sender.server.name}, {sender.scenario.title}: {error}") from error
    sender.server.forget()
    has_latencies = bool(sent.latencies)
    return Sample(
        server=sender.server.name,
        scenario=sender.scenario.name,
        round=number,
        megabytes_per_second=sent.megabytes_per_second,
        p50_ms=sent.percentile_ms(50) if has_latencies else None,
        p99_ms=sent.percentile_ms(99) if has_latencies else None,
        cpu_seconds_per_gigabyte=cpu / sent.data_set_bytes * 1e9,
        peak_megabytes=tree.peak_bytes() / 1e6,
        tls=sent.tls,
    )


def warm_memory(size: int) -> None:
    """Touch every page of so many bytes and give them back."""
    with mmap.mmap(-1, size) as area:
        for offset in range(0, size, mmap.PAGESIZE):
            area[offset] = 1


def _told(sample: Sample) -> str:
    latency = "" if sample.p50_ms is None else f"  p50 {sample.p50_ms:6.2f}  p99 {sample.p99_ms:6.2f} ms"
    cpu = f"  {sample.cpu_seconds_per_gigabyte:5.2f} CPU s/GB"
    return f"{sample.megabytes_per_second:8.1f} MB/s{cpu}{latency}  {sample.tls}"
