"""The Python API on a node's folder: what it stores is listed, audited, and delivered by the node that serves it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from support import films
from support.node import NodeProcess, free_port, radnode, wait_for
from support.strangers import scripted_pacs

from radnode.node import user_name

ROOT = Path(__file__).parents[2]

# A caller's program: analyse, store, retrieve, ask who had access. It prints one JSON document.
PROGRAM = """
import json, sys
from radnode import RadiologistAssistant
config, path, patient = sys.argv[1:]
with RadiologistAssistant(config) as assistant:
    analyzed = assistant.analyze_image(path)
    before = assistant.retrieve_results(patient)
    ids = assistant.store_results(analyzed)
    again = assistant.store_results(analyzed)
    results = assistant.retrieve_results(patient)
    access = assistant.access_logs(patient)
outcomes = [analysis.outcome.value for analysis in analyzed.analyses]
print(json.dumps({"outcomes": outcomes, "before": before, "ids": ids, "again": again, "results": results,
                  "access": access}))
"""

# The analysis of a version that is not installed here: as if it were retrained.
RETRAINED = """
import sys
from dataclasses import replace
from radnode import RadiologistAssistant
config, path = sys.argv[1:]
with RadiologistAssistant(config) as assistant:
    first = assistant.analyze_image(path)
    model = replace(first.analyses[0].model, version="9.0.0", device_uid="2.25.9", digest="9" * 64)
    newer = replace(first, analyses=[replace(first.analyses[0], model=model)])
    print(*(assistant.store_results(each)[0] for each in (first, newer, newer, first)))
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("assistant") / "node", pacs_port=port) as node:
        yield node


@pytest.fixture(scope="module")
def told(node: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program printed about a film of the patient 4711."""
    path = tmp_path_factory.mktemp("assistant-film") / "film.dcm"
    path.write_bytes(films.file_bytes(films.fresh(films.OPACITY, **films.UTF_8, PatientID="4711")))
    done = _python("-c", PROGRAM, str(node.config), str(path), "4711")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    return {**document, "SOPInstanceUID": str(pydicom.dcmread(path).SOPInstanceUID)}


def test_import_of_radnode_needs_neither_torch_nor_highdicom_nor_pynetdicom() -> None:
    program = "import sys, radnode; print(sorted({'torch', 'highdicom', 'pynetdicom'} & set(sys.modules)))"
    assert _python("-c", program).stdout == "[]\n"


def test_unknown_name_is_an_attribute_error_like_any_other() -> None:
    done = _python("-c", "import radnode; radnode.Assistant")
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'radnode' has no attribute 'Assistant'"


def test_nothing_is_stored_before_it_is_asked_for(told: dict[str, Any]) -> None:
    assert told["before"] == []


def test_stored_result_is_retrieved_by_patient_and_stored_once(told: dict[str, Any]) -> None:
    assert told["outcomes"] == ["finding"]
    assert told["ids"] == told["again"] == [result["id"] for result in told["results"]]
    assert told["results"][0]["source"]["SOPInstanceUID"] == told["SOPInstanceUID"]


def test_stored_result_is_visible_to_results_list(node: NodeProcess, told: dict[str, Any]) -> None:
    assert node.results() == told["results"]
    assert node.rows("results", "list", "--patient", "4711") == told["results"]
    assert node.rows("results", "list", "--patient", "4712") == []


def test_access_logs_name_every_use_of_the_patients_data_in_order(told: dict[str, Any]) -> None:
    names = [entry["event"].split()[1] for entry in told["access"]]
    assert names == [
        "image_analysed",  # analyze_image
        "result_read",  # retrieve_results before anything is stored: none
        *("image_received", "image_analysed", "report_created"),  # store_results
        "image_received",  # the same again
        "result_read",
        "trail_read",
    ]
    assert [entry["detail"]["count"] for entry in told["access"] if entry["event"].endswith("result_read")] == [0, 1]
    assert {(entry["actor"]["ae"], entry["actor"]["user"]) for entry in told["access"]} == {(None, user_name())}
    assert [entry["action"] for entry in told["access"] if entry["event"].endswith("image_received")] == ["C", "R"]
    assert len({entry["patient"] for entry in told["access"]}) == 1
    assert [entry["seq"] for entry in told["access"]] == sorted(entry["seq"] for entry in told["access"])


def test_stored_result_is_delivered_when_the_node_runs(node: NodeProcess, told: dict[str, Any], port: int) -> None:
    with scripted_pacs(port, node.folder / "pki") as heard:
        node.start(role="deliver", wait=("deliver",))
        wait_for(lambda: heard, 15, "the report was sent")
        [result] = told["results"]
        assert heard == [result["report"]["SOPInstanceUID"].encode()]  # this PACS takes nothing but reports
        done = [{"destination": "pacs", "state": "delivered", "tries": 1}]
        wait_for(lambda: node.results()[0]["delivered"] == done, 5, "the report is known to be there")
    assert node.run("audit", "verify").returncode == 0


def test_analysis_by_a_newer_model_is_a_new_report_that_names_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(films.file_bytes(films.fresh(films.OPACITY, PatientID="4713")))
    with NodeProcess(tmp_path / "node", pacs_port=free_port()) as node:
        done = _python("-c", RETRAINED, str(node.config), str(path))
        assert done.returncode == 0, done.stderr
        first, newer, *again = done.stdout.split()
        assert again == [newer, first]
        assert [row["id"] for row in node.results()] == [newer, first]
        reports = []
        for result in (first, newer):
            exported = tmp_path / f"{result}.dcm"
            assert node.run("results", "export", result, "-o", str(exported)).returncode == 0
            reports.append(pydicom.dcmread(exported))
    earlier, later = reports
    assert "PredecessorDocumentsSequence" not in earlier
    [study] = later.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [reference] = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID, reference.ReferencedSOPInstanceUID) == (
        earlier.StudyInstanceUID,
        earlier.SeriesInstanceUID,
        earlier.SOPInstanceUID,
    )


def test_python_block_of_the_readme_finds_and_stores_when_it_is_saved_to_a_file_and_run(tmp_path: Path) -> None:
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(block)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    assert radnode("init", tmp_path / "var", "--pacs", f"PACS@127.0.0.1:{free_port()}").returncode == 0
    done = _python("example.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = tmp_path / "var" / "radnode.toml"
    [result] = json.loads(radnode("results", "list", "-c", config, "--json").stdout)
    assert (result["outcome"], result["reason"]) == ("finding", None)
    jobs = json.loads(radnode("jobs", "list", "-c", config, "--json").stdout)
    assert len(jobs) == 1 + len(result["secondary"])
    assert {(job["kind"], job["destination"]) for job in jobs} == {("deliver", "pacs")}


DECODER_DOWN = """
import sys
from radnode import RadiologistAssistant
from radnode.errors import DecoderUnavailable
with RadiologistAssistant(sys.argv[1]) as assistant:
    python, sys.executable = sys.executable, "/no/such/python"
    try:
        assistant.analyze_image(sys.argv[2])
    except DecoderUnavailable as error:
        print(error)
    sys.executable = python
    print(assistant.analyze_image(sys.argv[2]).analyses[0].outcome.value)
"""


def test_decoder_that_does_not_start_raises_and_is_no_finding_about_the_image(node: NodeProcess) -> None:
    done = _python("-c", DECODER_DOWN, str(node.config), str(films.OPACITY))
    assert done.returncode == 0, done.stderr
    sentence, outcome = done.stdout.splitlines()
    assert sentence.startswith("The decoding process does not start")
    assert outcome == "finding"


def test_image_that_is_none_raises_one_sentence(node: NodeProcess, tmp_path: Path) -> None:
    path = tmp_path / "no.dcm"
    path.write_bytes(b"no image")
    program = (
        "import sys; from radnode import RadiologistAssistant; from radnode.errors import InputError\n"
        "with RadiologistAssistant(sys.argv[1]) as assistant:\n"
        "    try: assistant.analyze_image(sys.argv[2])\n"
        "    except InputError as error: print(error)\n"
    )
    done = _python("-c", program, str(node.config), str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(".\n")
    assert len(done.stdout.splitlines()) == 1


def _python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
