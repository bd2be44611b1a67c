"""Row 24 of "Bad input and what it gets" (security.md): a detector that takes memory until it is given no more, or
until the kernel kills its process for it, and one whose signature is another's.

The limits are real ones: of the memory of a control group, in which the kernel's OOM killer ends who takes more, and of
the worker's address space (RLIMIT_AS), set from outside while the worker runs: with room for its work, and with none.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import toys
from support.cgroup import limited_memory
from support.crash import CrashNode, Ledger, tree
from torch import Tensor

from radnode.detect.package import sign_package

ATTEMPTS = 2
HEADROOM = 3 << 30  # bytes that the worker may still take
TAKEN = 1 << 32  # float32 elements that the trap asks for: four times as much as there is room for, and more than once
GROUP = 1 << 30  # bytes that the node may take in the control group
RULE = """
[[rules]]
match = {{ StudyDescription = "{name}" }}
detect = ["{name}"]
"""


class Greedy(toys._Toy):
    """Takes 16 GiB, or another number of float32 elements, for an image with a white corner."""

    def __init__(self, taken: int = TAKEN) -> None:
        super().__init__()
        self.taken = taken

    def trap(self, corner: Tensor) -> Tensor:
        count = (corner > toys.WHITE).long().item() * self.taken
        torch._check(count >= 0)
        torch._check(count <= self.taken)
        return torch.ones(count).sum() * 0.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashNode]:
    overrides = {"RADNODE_DETECT__MAX_ATTEMPTS": str(ATTEMPTS), "RADNODE_DETECT__TIMEOUT_SECONDS": "10"}
    with CrashNode(tmp_path_factory.mktemp("memory") / "node", overrides=overrides) as node:
        toys.install(node.folder / "models", "toy-greedy", Greedy())
        toys.install(node.folder / "models", "toy-hungry", Greedy(2 * GROUP // 4))
        forged = toys.install(node.folder / "models", "toy-forged", toys.Raises())
        sign_package(forged, Ed25519PrivateKey.generate(), "tests")  # under the name of a key that is trusted
        text = node.config.read_text()
        assert "match = {} " in text
        rules = "".join(RULE.format(name=name) for name in ("toy-greedy", "toy-hungry", "toy-forged"))
        node.config.write_text(text.replace("match = {} ", 'match = { Modality = "DX" } ') + rules)
        yield node.start()


def outcomes(node: CrashNode) -> dict[str, tuple[str, str | None]]:
    """Outcome and reason of every image's result."""
    return {row["source"]["SOPInstanceUID"]: (row["outcome"], row["reason"]) for row in node.results()}


def test_row_24_worker_that_the_oom_killer_ends_costs_its_image_its_tries_and_nobody_else_anything(
    node: CrashNode,
) -> None:
    others = node.pids("intake"), node.pid("deliver"), node.pid("sequencer")
    films = [toys.film("toy-hungry"), toys.film("toy-hungry", trapped=True), toys.film("toy-hungry")]
    with limited_memory(GROUP) as group:
        group.join(tree(node.supervisor))
        ledger = Ledger(node, films)
        ledger.push(30)
        node.await_idle(120)
        assert group.kills() == ATTEMPTS
    first, trapped, last = (str(film.SOPInstanceUID) for film in films)
    no_finding, failed = ("no_finding", None), ("failed", "too_many_attempts")
    assert outcomes(node) == {first: no_finding, trapped: failed, last: no_finding}
    deaths = [(line["rule"], line["exit"]) for line in node.events("role_died")]
    assert deaths == [("worker", -signal.SIGKILL)] * ATTEMPTS
    assert (node.pids("intake"), node.pid("deliver"), node.pid("sequencer")) == others


def test_row_24_detector_that_is_refused_memory_fails_its_image_and_harms_no_neighbour(node: CrashNode) -> None:
    worker = node.pid("worker")
    assert worker is not None
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    films = [toys.film("toy-greedy"), toys.film("toy-greedy", trapped=True), toys.film("toy-greedy")]
    ledger = Ledger(node, films)
    ledger.push(30)
    assert len(ledger.promised) == 3
    node.await_idle(60)
    first, trapped, last = (str(film.SOPInstanceUID) for film in films)
    no_finding, failed = ("no_finding", None), ("failed", "model_raised")
    assert outcomes(node).items() >= {first: no_finding, trapped: failed, last: no_finding}.items()
    buried = "SELECT attempts, error FROM jobs WHERE state = 'dead' AND error = 'model_raised'"
    assert node.query(buried) == [(ATTEMPTS, "model_raised")]
    assert node.pid("worker") == worker  # the allocator said no, and the process serves on
    assert int(Path(f"/proc/{worker}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 < limit
    late = Ledger(node, [toys.film("toy-greedy")])
    late.push(20)
    node.await_idle(30)
    assert outcomes(node)[late.promised.pop()] == ("no_finding", None)


def test_row_24_worker_that_has_no_memory_left_ends_and_its_successor_does_the_image(node: CrashNode) -> None:
    worker = node.pid("worker")
    assert worker is not None
    resource.prlimit(worker, resource.RLIMIT_AS, (1, 1))  # what it has it keeps: not even a thread can be started
    film = toys.film("toy-greedy")
    ledger = Ledger(node, [film])
    ledger.push(30)
    node.await_idle(120)
    assert outcomes(node)[str(film.SOPInstanceUID)] == ("no_finding", None)
    assert node.pid("worker") != worker


def test_row_24_model_that_another_key_signed_is_refused_and_its_images_are_accepted_and_reported_as_failed(
    node: CrashNode,
) -> None:
    film = toys.film("toy-forged")
    ledger = Ledger(node, [film])
    ledger.push(30)
    node.await_idle(60)
    assert outcomes(node)[str(film.SOPInstanceUID)] == ("failed", "model_unavailable")
    [refused, *_] = [entry for entry in node.trail() if entry["event"].endswith("model_refused")]
    assert refused["model"].startswith("toy-forged")
    assert "signature" in refused["detail"]["reason"]
