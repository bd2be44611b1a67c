"""`scripts/bench detect`: films a second through the worker, beside a bare torch loop, also with a push beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from benchmarks import ROOT, objects
from benchmarks.client import Clients, Target
from benchmarks.processes import Tree, free_port
from benchmarks.servers import make_node
from radnode.configuration import load_settings
from radnode.model import PeerIdentity, StoreRequest
from radnode.node import Node
from radnode.part10 import read_file_meta

MODEL = "cxr-opacity"
LIMIT_SECONDS = 900.0
ALONE = {"RADNODE_REPORT__SECONDARY": "[]"}
_FILMS = ("cxr_opacity.dcm", "cxr_normal.dcm")
_PUSH = 100  # slices each time
Rate = tuple[float, float]  # films a second, and processor seconds a film


def measure(images: int, rounds: int, folder: Path, say: Callable[[str], None], *, is_quick: bool = False) -> None:
    """Measure interleaved and print medians over the rounds; where it is to be quick, without pictures and push.

    Raises:
        RuntimeError: the worker did not analyse every film.
    """
    films = folder / "films"
    write_films(films, images)
    node = Bench(folder, films)
    rates: dict[str, list[Rate]] = {}
    with Clients(1, [objects.ct()]) as clients:
        for _ in range(rounds):
            found = node.bare()
            found["worker, reports alone"] = node.work(ALONE)
            if not is_quick:
                found["worker, reports and pictures"] = node.work({})
                found |= _beside_a_push(node, clients)
            for name, value in found.items():
                rates.setdefault(name, []).append(value)
    rate = {name: median(each for each, _ in values) for name, values in rates.items()}
    used = {name: median(each for _, each in values) for name, values in rates.items()}
    threads = f"{node.threads} thread" + "s" * (node.threads > 1)
    head = f"films a second, batch {node.batch}, {threads}", f"median of {rounds}"
    say(f"| {' | '.join(head)} | against the loop | must | CPU ms a film |")
    say("|---|---|---|---|---|")
    goals = {"worker, reports alone": 0.9, _BESIDE: 0.7}
    for name in [name for name in rate if "MB/s" not in name]:
        ratio, goal = rate[name] / rate["loop"], goals.get(name)
        verdict = "" if goal is None else f"{goal:g}x {'met' if ratio >= goal else 'not met'}"
        say(f"| {_TITLES.get(name, name)} | {rate[name]:.1f} | {ratio:.2f}x | {verdict} | {1000 * used[name]:.0f} |")
    if is_quick:
        return
    alone, beside = rate["push alone, MB/s"], rate["push beside the worker, MB/s"]
    verdict = "met" if beside >= 0.7 * alone else "not met"
    say("")
    say(f"The listener takes {alone:.0f} MB/s alone and {beside:.0f} beside the worker: {beside / alone:.2f}x")
    say(f"(must 0.7x: {verdict}).")


def _beside_a_push(node: Bench, clients: Clients) -> dict[str, Rate]:
    """Return the rates of a worker and of a listener that works beside it, and that of the listener alone."""
    pushed: list[float] = []
    with node.listener() as target:
        alone = clients.push(target, "ct", _PUSH * 4, 1).megabytes_per_second
        rate = node.work(ALONE, partial(_push, clients, target, pushed))
    return {_BESIDE: rate, "push alone, MB/s": (alone, 0.0), "push beside the worker, MB/s": (median(pushed), 0.0)}


_BESIDE = "worker, reports alone, beside a push"
_TITLES = {"loop": "bare loop: file, decode, prepare, network", "network": "the network alone, tensors in memory"}


def write_films(folder: Path, count: int) -> None:
    """Write films of the two bundled ones, each a study of its own."""
    folder.mkdir()
    for number in range(count):
        film = pydicom.dcmread(ROOT / "tests/data" / _FILMS[number % 2])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(film, keyword, generate_uid())
        film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
        film.save_as(folder / f"{number:05}.dcm")


class Bench:
    """A node whose films are fed to its intake in this process; its worker and its listener are its own."""

    def __init__(self, folder: Path, films: Path) -> None:
        self._films = films
        self._log = folder / "worker.log"
        port = free_port()
        self._config = make_node(folder / "node", port)
        text = self._config.read_text(encoding="utf-8").replace("match = {} ", 'match = { Modality = ["CR", "DX"] } ')
        self._config.write_text(text, encoding="utf-8")
        self._target = Target(port, folder / "node" / "pki", "RADNODE")
        self._node = Node(load_settings(self._config))
        self.batch, self.threads = self._node.settings.detect.batch, self._node.settings.detect.threads

    def bare(self) -> dict[str, Rate]:
        """Return the rates of the bare loop."""
        models = self._node.settings.path(self._node.settings.detect.models)
        arguments = [str(self._films), str(models), MODEL, str(self.threads), str(self.batch)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.bare_detect", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts")))},
        )
        return {name: (rate, used) for name, (rate, used) in json.loads(done.stdout).items()}

    def work(self, environment: dict[str, str], beside: Callable[[], None] | None = None) -> Rate:
        """Keep every film anew, start a worker, and return how many it commits a second, its first batch left out."""
        count = 0
        for path in sorted(self._films.glob("*.dcm")):
            self._receive(pydicom.dcmread(path))
            count += 1
        self._log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "radnode", "serve", "-c", self._config, "--role", "worker"]
        worker = Tree(command, self._log, environment)
        try:
            self._wait(lambda: len(self._moments()) >= self.batch)
            first, used = len(self._moments()), worker.cpu_seconds()
            deadline = time.monotonic() + LIMIT_SECONDS
            while len(self._moments()) < count and time.monotonic() < deadline:
                if beside is None:
                    time.sleep(0.2)
                else:
                    beside()
            used = (worker.cpu_seconds() - used) / max(1, count - first)
        finally:
            worker.stop()
        moments = self._moments()
        if len(moments) < count:
            raise RuntimeError(f"{len(moments)} films of {count} were analysed")
        return (count - self.batch) / (moments[-1] - moments[self.batch - 1]), used

    @contextmanager
    def listener(self) -> Iterator[Target]:
        """Serve the role intake."""
        command = [sys.executable, "-m", "radnode", "serve", "-c", self._config, "--role", "intake"]
        tree = Tree(command, self._log.with_name("intake.log"), {})
        try:
            tree.wait_listening(self._target.port)
            yield self._target
        finally:
            tree.stop()

    def _receive(self, film: Dataset) -> None:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(film, keyword, generate_uid())
        film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
        path = self._log.with_name("film.dcm")
        film.save_as(path)
        part10 = path.read_bytes()
        meta = read_file_meta(part10)
        uids = meta.sop_class_uid, meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid
        self._node.intake.receive(
            StoreRequest(PeerIdentity("MODALITY1", None, "127.0.0.1"), *uids), part10[meta.offset :]
        )

    def _moments(self) -> list[float]:
        """Return when each film was committed (epoch seconds)."""
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in self._log.read_text().splitlines() if line[-1:] == "}"
        ]
        told = [line["timestamp"] for line in lines if line["event"] == "image_analysed"]
        return [datetime.fromisoformat(moment).timestamp() for moment in told]

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError("the worker analysed nothing: " + self._log.read_text()[-2000:])
            time.sleep(0.1)


def _push(clients: Clients, target: Target, rates: list[float]) -> None:
    rates.append(clients.push(target, "ct", _PUSH, 1).megabytes_per_second)
