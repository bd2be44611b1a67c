"""scripts/bench starts what it compares and reports every row; how fast anything is, is not asked here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_bench_receive_reports_every_server_and_goal(tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    choice = ["--only", "radnode,dcmtk,raw-fsync", "--scenarios", "ct1,ct4,storescu"]
    command = [sys.executable, ROOT / "scripts/bench", "receive", "--quick", "--ct", "8", *choice]
    done = subprocess.run(
        [*command, "--json", samples, "--write", page], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr  # any status but 0000 is an error
    rows = {line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")}
    assert {
        "radnode",
        "dcmtk, TCP_NODELAY=1",
        "raw-fsync",
        "radnode against raw TLS to file + fsync, 1 stream",
        "radnode against dcmtk storescp +B, tuned, 4 associations",
        "radnode: CPU per GB, the worse of 1 and 4 associations",
    } <= rows
    measured = {(one["server"], one["scenario"]): one for one in json.loads(samples.read_text())}
    assert set(measured) == {
        *((server, scenario) for server in ("radnode", "dcmtk", "raw-fsync") for scenario in ("ct1", "ct4")),
        ("radnode", "storescu"),
    }
    for one in measured.values():
        assert one["megabytes_per_second"] > 0
        assert one["peak_megabytes"] > 0
        assert one["tls"] == ("TLSv1.3" if one["scenario"] != "storescu" else "")
    written = page.read_text(encoding="utf-8")
    assert done.stdout.strip() in written
    assert written.startswith("# Benchmarks") and "## The audit trail" in written


def test_bench_receive_ends_with_an_error_when_a_server_refuses() -> None:
    choice = ["--only", "raw-discard", "--variant", "tiny:RADNODE_NODE__MAX_OBJECT_BYTES=1000", "--scenarios", "ct1"]
    command = [sys.executable, ROOT / "scripts/bench", "receive", "--quick", "--ct", "4", *choice]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert re.search(r"tiny, CT, 1 association: .*C-STORE was answered A700", done.stderr)


def test_bench_profile_names_where_a_stored_object_was_made_durable() -> None:
    command = [sys.executable, ROOT / "scripts/bench", "profile", "--images", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +\d+\.\d %  storage/", done.stdout, re.MULTILINE)


def test_bench_queue_reports_costs_pick_up_and_order() -> None:
    command = [sys.executable, ROOT / "scripts/bench", "queue", "--quick", "--finished", "5000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^lease \+ finish, one by one +[\d.]+ +[\d.]+ +[\d.]+x$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^pick-up by a sleeping process, .*: p50 [\d.]+ ms", done.stdout, re.MULTILINE)) == 2
    assert "behind 10,000 images of one peer, a single image of another is number 3" in done.stdout
    assert "a STAT image of that peer: number 1" in done.stdout
    assert "12.5 % of the analyses are routine ones" in done.stdout


def test_bench_report_measures_reports_beside_highdicom() -> None:
    command = [sys.executable, ROOT / "scripts/bench", "report", "--rounds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row[0].strip(): row for row in (line.split("|")[1:-1] for line in done.stdout.splitlines())}
    assert float(rows["one image, one finding"][4]) > 0
    assert [cell.strip() for cell in rows["one image, ten findings"][5::2]] == ["30", "15"]
    assert int(rows["400 images, one finding"][3].replace(",", "")) > 100_000


def test_bench_detect_compares_the_worker_with_the_bare_loop() -> None:
    command = [sys.executable, ROOT / "scripts/bench", "detect", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:4] for line in done.stdout.splitlines() if line.startswith("| ")
    }
    for row in (
        "bare loop: file, decode, prepare, network",
        "the network alone, tensors in memory",
        "worker, reports alone",
    ):
        rate, ratio = rows[row]
        assert float(rate) > 0
        assert float(ratio.strip().removesuffix("x")) > 0
