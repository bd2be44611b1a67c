"""docs/bring-your-own-model.md, executed word for word: whoever follows it gets a report of their own model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from support import films
from support.node import free_port
from support.report_checks import name, problems, walk

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bring-your-own-model.md"


def shims(folder: Path) -> Path:
    """The commands that the page uses, as this checkout has them."""
    folder.mkdir()
    for command, line in {"radnode": "-m radnode", "python": "", "pip": "-m pip"}.items():
        path = folder / command
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {line} "$@"\n')
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which somebody has pasted every block of the page into a shell."""
    folder = tmp_path_factory.mktemp("own")
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    code = folder / "installed"  # where the page's distribution goes: not into the environment of the tests
    environment = {
        **os.environ,
        "PATH": f"{shims(folder / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{code}",
        "PORT": str(free_port()),
        "FILM": str(films.OPACITY),
        "PIP_TARGET": str(code),
    }
    script = "set -euo pipefail\ntrap 'kill $(cat node.pid) 2> /dev/null || true' EXIT\n" + "".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (folder / "said").write_text(done.stdout)
    yield folder


def test_report_of_the_torchscript_model_names_it_and_conforms(followed: Path) -> None:
    report = pydicom.dcmread(followed / "my-report.dcm")
    assert problems(report, [pydicom.dcmread(films.OPACITY)]) == []
    found = {name(item): item for item in walk(report)}
    manifest = (followed / "my-detector" / "model.toml").read_text()
    assert found["111003"].TextValue == "1.0.0"
    assert found["121012"].UID in manifest


def test_every_kind_of_model_is_tried_and_installed_and_versions_came_and_went(followed: Path) -> None:
    said = (followed / "said").read_text()
    for model in ("my-detector", "segments", "from-monai", "xrv-effusion", "from-code"):
        assert f"{model} 1.0.0, signed by my-hospital, is installed." in said
    assert "my-detector 1.0.0 is active; 1.1.0 was." in said
    lines = [json.loads(line) for line in (followed / "node.log").read_text().splitlines()]
    loaded = [line["model"] for line in lines if line["event"] == "model_loaded"]
    assert loaded[0] == "my-detector 1.0.0"
    assert "my-detector 1.1.0" in loaded
