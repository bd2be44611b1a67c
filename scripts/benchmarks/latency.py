"""`scripts/bench latency`: one X-ray from its last byte in to its report at the PACS, less the model's forward time.

Films go in one by one over one association, each when the node has nothing else to do. The PACS is a stock pynetdicom
server in this process: an object counts as accepted when its handler has it, all of it.
"""

from __future__ import annotations

import json
import queue
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt

from benchmarks import ROOT, client, objects
from benchmarks.objects import Kind, Message, new_uid
from benchmarks.processes import Tree, free_port
from radnode.configuration import load_settings
from radnode.detect.catalogue import installed
from radnode.detect.package import load_package, load_trusted
from radnode.detect.program import place_program
from radnode.settings import Settings

SR = "1.2.840.10008.5.1.4.1.1.88.34"
MODEL = "cxr-opacity"
MUST_MS, MUST_P99_MS, REACH_MS = 80.0, 250.0, 40.0
WAIT_SECONDS = 30.0
_PAUSE_SECONDS = 0.15  # until a node that has delivered has settled and sleeps
_WARM = 5  # films that are sent first and not counted
_PICTURES = {"report and picture": '["sc"]', "report alone": "[]"}

Arrivals = queue.Queue[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds from the last byte in to the report at the PACS, and to the last object of the result there."""

    report: list[float]
    last: list[float]


def measure(films: int, folder: Path, say: Callable[[str], None]) -> None:
    """Measure both kinds of film, with and without a picture, and print a row each.

    Raises:
        RuntimeError: a report did not come.
        PushFailed: the node refused a film.
    """
    forward = forward_ms(Settings())
    say(f"the model's forward, one film: p50 {forward:.1f} ms; {films} films a row, one after the other")
    say("| film | sent to the PACS | report p50 ms | p99 | less forward p50 | p99 | must | | reach | | all there p50 |")
    say("|---|---|---|---|---|---|---|---|---|---|---|")
    for what, kinds in _PICTURES.items():
        for kind in (objects.film(), objects.dx()):
            times = _run(folder / f"{kind.name}-{len(kinds)}", kind, kinds, films)
            half, high = statistics.median(times.report), statistics.quantiles(times.report, n=100)[-1]
            met = "met" if half - forward <= MUST_MS and high - forward <= MUST_P99_MS else "not met"
            reached = "met" if half - forward <= REACH_MS else "not met"
            size = f"{kind.name}, {len(kind.data_sets[0]) / 1e6:.1f} MB"
            cells = [size, what, f"{half:.1f}", f"{high:.1f}", f"{half - forward:.1f}", f"{high - forward:.1f}"]
            goals = [f"{MUST_MS:g} / {MUST_P99_MS:g}", met, f"{REACH_MS:g}", reached]
            say(f"| {' | '.join([*cells, *goals, f'{statistics.median(times.last):.1f}'])} |")


def forward_ms(settings: Settings) -> float:
    """Return how long the detector's network takes on one image, in milliseconds, as the worker runs it."""
    import torch  # noqa: PLC0415 (after the settings, as in the worker)

    models = ROOT / "models"
    [*_, (_, _, newest)] = [found for found in installed(models) if found[0] == MODEL]
    package = load_package(newest, load_trusted(models))
    if package.manifest.input is None:
        raise RuntimeError(f"{MODEL} is no detector of images")
    program, device = place_program(package, settings.detect.device, settings.detect.threads)
    size = package.manifest.input.size
    image = torch.zeros(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    found = []
    with torch.inference_mode():
        for _ in range(30):
            begun = time.perf_counter()
            program(image)
            found.append(1000 * (time.perf_counter() - begun))
    return statistics.median(found[5:])


def _run(folder: Path, kind: Kind, kinds: str, films: int) -> Times:
    """Start a node and its PACS, and send films to it."""
    port, pacs_port = free_port(), free_port()
    arguments = ["init", str(folder), "--port", str(port), "--pacs", f"PACS@127.0.0.1:{pacs_port}"]
    subprocess.run([sys.executable, "-m", "radnode", *arguments], check=True, capture_output=True)
    command = [sys.executable, "-m", "radnode", "serve", "-c", str(folder / "radnode.toml")]
    log = folder.with_suffix(".log")
    with _pacs(pacs_port, folder / "pki") as arrivals:
        tree = Tree(command, log, {"RADNODE_REPORT__SECONDARY": kinds})
        try:
            tree.wait_listening(port)
            _wait_for_worker(log)
            target = client.Target(port, folder / "pki", load_settings(folder / "radnode.toml").node.ae_title)
            return _send(target, kind, films, arrivals, len(json.loads(kinds)))
        finally:
            tree.stop()


def _wait_for_worker(log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while b'"ready"' not in log.read_bytes():
        if time.monotonic() > deadline:
            raise RuntimeError("no worker is ready")
        time.sleep(0.1)


def _send(target: client.Target, kind: Kind, films: int, arrivals: Arrivals, pictures: int) -> Times:
    times = Times([], [])
    with client.connect(target) as connection:
        context_id, max_pdu = client.associate(connection, target.called or "", kind)
        for number in range(_WARM + films):
            message = Message(kind.in_new_study()[0], kind.sop_class_uid, context_id, max_pdu)
            message.name(new_uid().encode())
            connection.sendall(message.buffer)
            sent = time.monotonic()
            client.read_success(connection)
            came = [_next(arrivals) for _ in range(1 + pictures)]
            if number >= _WARM:
                times.report.append(1000 * (next(at for at, uid in came if uid == SR) - sent))
                times.last.append(1000 * (max(at for at, _ in came) - sent))
            time.sleep(_PAUSE_SECONDS)
    return times


def _next(arrivals: Arrivals) -> tuple[float, str]:
    try:
        return arrivals.get(timeout=WAIT_SECONDS)
    except queue.Empty:
        raise RuntimeError("an object of the result did not come to the PACS") from None


@contextmanager
def _pacs(port: int, pki: Path) -> Iterator[Arrivals]:
    """Run a PACS that keeps nothing; gives a queue of when (`time.monotonic()`) an object of which SOP class came."""
    arrivals: Arrivals = queue.Queue()

    def store(event: evt.Event) -> int:
        arrivals.put((time.monotonic(), str(event.request.AffectedSOPClassUID)))
        return 0x0000

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "pacs.crt", pki / "pacs.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    entity = AE(ae_title="PACS")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(
        ("127.0.0.1", port), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    try:
        yield arrivals
    finally:
        server.shutdown()
