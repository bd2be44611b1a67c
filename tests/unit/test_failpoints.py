"""Failpoints: nothing without the variable; armed, one process is hit once; every place stands in the code once."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.failpoints import Failpoints

from radnode.failpoints import COMMAND_PLACES, PLACES, reach

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from radnode.failpoints import reach
for word in sys.stdin:
    reach(word.strip())
    print("passed", flush=True)
"""


def passes(environment: dict[str, str], *places: str) -> subprocess.CompletedProcess[str]:
    said = "".join(f"{place}\n" for place in places)
    inherited = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", CHILD]
    return subprocess.run(command, input=said, env=inherited, capture_output=True, text=True, timeout=30, check=False)


def test_place_that_is_armed_kills_the_first_who_comes_by_and_no_other(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path / "armed")
    failpoints.arm("report-sent")
    hit = passes(failpoints.environment, "image-committed", "report-sent", "report-sent")
    assert (hit.returncode, hit.stdout) == (-signal.SIGKILL, "passed\n")
    assert failpoints.hit("report-sent")
    assert failpoints.hit("report-sent") is None
    assert failpoints.hits == {"report-sent": 1}
    assert passes(failpoints.environment, "report-sent").returncode == 0


def test_disarmed_place_hits_nobody(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path / "armed")
    failpoints.arm("report-sent")
    assert failpoints.disarm("report-sent")
    assert not failpoints.disarm("report-sent")
    assert passes(failpoints.environment, "report-sent").stdout == "passed\n"


def test_without_the_variable_nothing_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report-sent").write_text("KILL")
    reach("report-sent")
    assert (tmp_path / "report-sent").exists()


def test_page_says_of_every_place_in_its_step_what_is_left() -> None:
    _, _, section = (ROOT / "docs" / "life-of-an-image.md").read_text(encoding="utf-8").partition("\n## Places\n")
    said = {}
    for row in section.splitlines():
        if row.startswith("| ") and "`" in row:
            steps, places, left = row.strip("| ").split(" | ")
            assert left
            said |= dict.fromkeys(re.findall(r"`([a-z-]+)`", places), steps.split(", "))
    assert set(said) == set(PLACES)
    assert [place for place, step in PLACES.items() if step not in said[place]] == []


def test_every_place_stands_in_the_code_once() -> None:
    found = [
        ast.literal_eval(node.args[0])
        for path in (ROOT / "radnode").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach"
    ]
    assert sorted(found) == sorted({*PLACES, *COMMAND_PLACES})
