"""Where torch is not installed: a node is made, receives, is asked; another machine's worker does the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from support import films
from support.crash import CrashNode, Ledger, assert_one_report_each, report_counts
from support.node import REPORT_ALONE, Orthanc, free_port, wait_for

from radnode.errors import ConfigError

ROOT = Path(__file__).parents[2]
ABSENT = ("torch", "functorch", "nvidia", "triton", "highdicom")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with everything that this one has, but neither torch nor highdicom; its interpreter."""
    folder = tmp_path_factory.mktemp("without-torch")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    [target] = (folder / "lib").glob(f"{version}/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(ABSENT) and entry.suffix != ".pth":
            (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def run(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


def radnode(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(python, "-m", "radnode", *arguments)


def serve(python: Path, node: CrashNode, roles: str) -> subprocess.Popen[bytes]:
    """`radnode serve` under another interpreter; it writes the node's log."""
    with node.log_path.open("ab") as log:
        command = [str(python), "-m", "radnode", "serve", "-c", str(node.config), "--role", roles]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | REPORT_ALONE)


def listening(node: CrashNode) -> Sequence[object]:
    return node.events("listening")


def test_this_interpreter_really_has_no_torch(python: Path) -> None:
    for name in ("torch", "highdicom"):
        tried = run(python, "-c", f"import {name}")
        assert tried.returncode == 1
        assert "ModuleNotFoundError" in tried.stderr
    assert run(python, "-c", "import pydicom, pynetdicom, sqlalchemy").returncode == 0


def test_importing_radnode_and_its_commands_imports_neither_torch_nor_highdicom() -> None:
    names = ("serving", "peers", "results", "jobs", "models", "audit")
    imported = ", ".join(f"radnode.cli.{name}" for name in names)
    code = f"import json, sys, radnode, {imported}; print(json.dumps(sorted(sys.modules)))"
    done = run(Path(sys.executable), "-c", code)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "highdicom"} & set(json.loads(done.stdout))


@pytest.mark.parametrize("role", ["intake", "deliver", "sequencer"])
def test_only_the_worker_of_a_whole_node_imports_torch(role: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['highdicom'] = None; "  # None: importing it raises
        f"from radnode.roles import ROLES; ROLES[{role!r}]; import radnode.process, radnode.supervisor; "
        "import radnode.network.server, radnode.network.storage_scu, radnode.deliver.outbox"
    )
    done = run(Path(sys.executable), "-c", code)
    assert done.returncode == 0, done.stderr


def test_intake_serves_without_torch_and_a_whole_node_analyses_and_delivers_what_it_kept(
    python: Path, tmp_path: Path
) -> None:
    port = free_port()
    # for its ports and paths only; the node below is made without
    node = CrashNode(tmp_path / "made-with-torch", overrides=REPORT_ALONE)
    folder = tmp_path / "node"
    made = radnode(python, "init", folder, "--port", str(node.port), "--pacs", f"PACS@127.0.0.1:{port}")
    assert made.returncode == 0, made.stderr
    node.folder, node.config = folder, folder / "radnode.toml"

    process = serve(python, node, "intake")
    try:
        wait_for(lambda: listening(node), 60, "intake listens")
        images: list[Dataset] = [films.fresh(films.OPACITY), films.fresh(films.NORMAL)]
        ledger = Ledger(node, images)
        ledger.push(30)
        assert ledger.promised == {str(image.SOPInstanceUID) for image in images}
        for command, code in ((("results", "list"), 0), (("models", "list"), 0), (("models", "verify"), 0)):
            done = radnode(python, *command, "-c", node.config)
            assert done.returncode == code, done.stderr
        verified = radnode(python, "audit", "verify", "-c", node.config)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        jobs = json.loads(radnode(python, "jobs", "list", "--json", "-c", node.config).stdout)
        assert [(job["kind"], job["state"]) for job in jobs] == [("analyse", "ready")] * 2
        findings = json.loads(radnode(python, "check", "--json", "-c", node.config).stdout)
        said = {finding["subject"]: finding for finding in findings}
        assert said["torch"]["fit"]
        assert "not installed" in said["torch"]["text"]
        assert said["model cxr-opacity"]["fit"]
        assert not said["destination pacs"]["fit"]  # no PACS runs yet, and that alone is wrong
        assert [finding["subject"] for finding in findings if not finding["fit"]] == ["destination pacs"]
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert not node.events("role_died")
    # The worker refuses to start here, says why, and gives up no image.
    assert serve(python, node, "all").wait(60) == ConfigError.exit_code
    [line] = node.events("role_failed")
    assert (line["role"], line["error"]) == ("worker", "ConfigError")
    assert "install radnode[detect]" in line["message"]
    assert node.jobs() == {("analyse", "ready"): 2}
    with Orthanc(tmp_path / "pacs", port, folder / "pki") as pacs, node:
        node.start()
        node.await_idle(60)
        wait_for(lambda: report_counts(pacs) >= 2, 10, "both reports are at the PACS")
        assert_one_report_each(pacs, ledger.promised)
        assert sorted(result["outcome"] for result in node.results()) == ["finding", "no_finding"]
        node.stop()
        node.assert_sound()


def test_node_whose_rules_name_no_detector_serves_all_roles_without_torch_and_ends_what_is_left(
    python: Path, tmp_path: Path
) -> None:
    node = CrashNode(tmp_path / "node", overrides={"RADNODE_NETWORK__LISTENERS": "1"})
    detecting = node.config.read_text()
    forwarding = detecting.replace('detect = ["cxr-opacity"]', "detect = []")
    image: Dataset = films.fresh(films.NORMAL)
    for config, roles in ((detecting, "intake"), (forwarding, "all"), (forwarding, "all")):
        node.config.write_text(config)
        before = len(listening(node))
        process = serve(python, node, roles)
        try:
            wait_for(lambda before=before: len(listening(node)) > before, 60, "it listens")
            if roles == "intake":
                Ledger(node, [image]).push(20)
                assert node.jobs() == {("analyse", "ready"): 1}
            else:
                node.await_idle(30)  # the first time by a worker, which finds that nobody wants the image any more
        finally:
            process.terminate()
            assert process.wait(60) == 0
    assert node.jobs() == {("analyse", "done"): 1}
    assert len(node.events("role_not_needed")) == 1
    assert [line["role"] for line in node.events("ready")].count("worker") == 1
    assert not node.events("role_died")
    assert not node.events("role_failed")
