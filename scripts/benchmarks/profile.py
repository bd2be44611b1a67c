"""`scripts/bench profile`: where the time of a received CT goes, by layer and function, from samples of the stacks."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import objects
from benchmarks.client import Clients, Target
from benchmarks.processes import Tree, free_port
from benchmarks.servers import make_node

_ROWS = 30
_LEAST = 0.5  # percent
_IDLE = 95  # percent in one place: a thread that waits


def measure(
    images: int, associations: int, settings: dict[str, str], folder: Path, say: Callable[[str], None] = print
) -> None:
    """Push `images` CT over `associations` and print the shares of the listener's threads.

    Raises:
        PushFailed: the node answered anything but success.
    """
    port, node, out = free_port(), folder / "node", folder / "samples.json"
    config = make_node(node, port)
    target = Target(port, node / "pki", "RADNODE")
    with Clients(associations, [objects.ct()]) as clients:
        command = [sys.executable, "-m", "benchmarks.sampled_role", config, out]
        listener = Tree(command, folder / "log", settings)
        try:
            listener.wait_listening(port)
            clients.push(target, "ct", max(images // 4, associations), associations)
            listener.tell(signal.SIGUSR1)
            sent = clients.push(target, "ct", images, associations)
        finally:
            listener.stop()
    say(f"{sent.megabytes_per_second:.1f} MB/s while sampled, p50 {sent.percentile_ms(50):.2f} ms for each of {images}")
    samples = json.loads(out.read_text())
    for thread, total in _totals(samples, lambda sample: sample[0]).items():
        of_thread = [sample for sample in samples if sample[0] == thread]
        _, ours, innermost, most = of_thread[0]
        if most >= total * _IDLE / 100:
            say(f"\n{thread}: waits in {ours} > {innermost}")
            continue
        layers = _totals(of_thread, lambda sample: sample[1].partition(":")[0] or "(libraries alone)")
        say(f"\n{thread}: {total:,} samples")
        for name, count in layers.items():
            if count >= total * _LEAST / 100:
                say(f"  {100 * count / total:5.1f} %  {name}")
        say("  by function, and the function it was in:")
        for _, ours, innermost, count in of_thread[:_ROWS]:
            if count >= total * _LEAST / 100:
                say(f"  {100 * count / total:5.1f} %  {ours}" + (f" > {innermost}" if innermost != ours else ""))


def _totals(samples: list[list], key: Callable[[list], str]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for sample in samples:
        totals[key(sample)] += sample[3]
    return dict(totals.most_common())
