"""A PACS that comes back after an hour: how long its reports take, and what an image pays that arrives meanwhile."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from radnode.audit.events import Actor
from radnode.configuration import load_settings
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import get_instance
from radnode.model import Analysis, Code, ModelIdentity, Outcome, PeerIdentity, StoreRequest
from radnode.node import Node
from radnode.part10 import file_header
from radnode.results import Report
from radnode.rules import Decision

SR = "1.2.840.10008.5.1.4.1.1.88.34"
EXPLICIT = "1.2.840.10008.1.2.1"
REPORT_BYTES = 12_000  # of a report with a few findings
BATCH = 200  # results a commit
LIMIT_SECONDS = 600.0
AT_ONCE, REST_SECONDS = 20, 0.2  # images come in bursts, alone and beside the delivery alike
ALONE = 50  # bursts while the PACS is away


def measure(reports: int, away: float, folder: Path, say: Callable[[str], None]) -> None:
    """Store reports, let the deliver process find nobody for `away` seconds, start the PACS, and watch.

    Raises:
        RuntimeError: not every report arrived, or one arrived twice.
    """
    from benchmarks.pacs import free_port, made_node, receiving_pacs  # noqa: PLC0415

    port = free_port()
    config = made_node(folder / "node", port)
    node = Node(load_settings(config))
    began = time.perf_counter()
    fill(node, reports)
    with transaction(node.engine) as tx:  # as if they had waited for an hour
        tx.exec_driver_sql("UPDATE jobs SET created = created - 3600")
    say(f"{reports} reports are stored and wait ({time.perf_counter() - began:.1f} s)")
    arguments = [sys.executable, "-m", "radnode.process", "deliver", str(config)]
    with (folder / "deliver.log").open("wb") as log:
        deliver = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ)
    try:
        time.sleep(away)
        alone: list[float] = []
        for _ in range(ALONE):
            alone += arrivals(node, AT_ONCE, 1_000_000 + len(alone))
            time.sleep(REST_SECONDS)
        with receiving_pacs(port, node.settings.data_dir / "pki") as taken:
            back = time.perf_counter()
            during: list[float] = []
            while len(taken()) < reports and time.perf_counter() - back < LIMIT_SECONDS:
                during += arrivals(node, AT_ONCE, 2_000_000 + len(during))
                time.sleep(REST_SECONDS)
            seconds = time.perf_counter() - back
            time.sleep(2)
            found = taken()
    finally:
        deliver.terminate()
        deliver.wait(60)
    if len(found) != reports or len(set(found)) != reports:
        raise RuntimeError(f"{len(found)} objects arrived, {len(set(found))} different ones, of {reports}")
    say(f"all {reports} delivered once, {seconds:.1f} s after the PACS was back ({reports / seconds:.0f}/s)")
    ratio = statistics.median(during) / statistics.median(alone)
    say(
        f"an image committed meanwhile ({len(during)}): median {statistics.median(during) * 1000:.2f} ms, "
        f"p99 {_p99(during):.2f} ms; while the PACS is away ({len(alone)}): median "
        f"{statistics.median(alone) * 1000:.2f} ms, p99 {_p99(alone):.2f} ms; "
        f"ratio {ratio:.2f}, of the p99 {_p99(during) / _p99(alone):.2f}"
    )


def _p99(seconds: list[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return sorted(seconds)[len(seconds) * 99 // 100] * 1000


def arrivals(node: Node, count: int, first: int) -> list[float]:
    """Keep images by the node's own intake, and return how many seconds each took."""
    found = []
    for number in range(first, first + count):
        began = time.perf_counter()
        _receive(node, number)
        found.append(time.perf_counter() - began)
    return found


def _receive(node: Node, number: int) -> str:
    ct, uid = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}"
    peer = PeerIdentity("MODALITY1", None, "127.0.0.1")
    values = {0x00080016: ct, 0x00080018: uid, 0x0020000D: "1.2.3", 0x0020000E: "1.2.3.0"}
    data_set = b"".join(_element(tag, value.encode()) for tag, value in values.items())
    request = StoreRequest(peer, ct, uid, ct, EXPLICIT)
    return node.intake.receive(request, data_set, enqueue=False).instance


def _element(tag: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return head + b"UI" + len(value).to_bytes(2, "little") + value


def fill(node: Node, count: int) -> None:
    """Store results of one image by the real way, their reports composed already, many in a commit."""
    with_image = _receive(node, 0)
    with reading(node.engine) as tx:
        instance = get_instance(tx, with_image)
    model = ModelIdentity("bench", "1", "2.25.1", "0" * 64, "radnode")
    analysis = Analysis(Outcome.NO_FINDING, model, Code("112001", "DCM", "Opacity"), score=0.1)
    source = {
        "PatientID": "1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.0",
        "SOPInstanceUID": "1.2.3.0",
    }
    peer = PeerIdentity("RADNODE", None, "127.0.0.1")
    for start in range(0, count, BATCH):
        prepared = []
        for number in range(start, min(start + BATCH, count)):
            uid = f"2.25.{number + 1}"
            data_set = _element(0x00080016, SR.encode()) + _element(0x00080018, uid.encode()) + _padding()
            part10 = file_header(StoreRequest(peer, SR, uid, SR, EXPLICIT)) + data_set
            prepared.append(node.results.prepare(instance, source, analysis, Report(uid, part10)))
        with transaction(node.engine) as tx:
            new = [item for item in prepared if item is not None]
            node.results.commit(tx, new, Decision(deliver=("pacs",)), Actor(user="bench"))


def _padding() -> bytes:
    """Return an element (Data Set Trailing Padding, PS3.10 section 7.2) that makes a report as long as real ones."""
    return b"\xfc\xff\xfc\xffOB\0\0" + REPORT_BYTES.to_bytes(4, "little") + bytes(REPORT_BYTES)
