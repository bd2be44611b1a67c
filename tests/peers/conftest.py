"""The running clinic that tests of the whole way share: a node, an Orthanc, and films on several patients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import config
from support import films
from support.bad_input import LANES, Target, target_in
from support.node import NodeProcess, Orthanc, free_port, wait_for

CASES = {"normal": films.NORMAL, "ct": films.CT[7], "mr": films.MR, "undecodable": films.OPACITY}
PATIENTS = {"latin": films.LATIN, "japanese": films.JAPANESE, "utf8": films.UTF_8}


class Clinic:
    """A serving node, an Orthanc beside it, and the films that were sent."""

    def __init__(self, node: NodeProcess, pacs: Orthanc, folder: Path) -> None:
        self.node = node
        self.pacs = pacs
        self.folder = folder
        self._reports: dict[Path, str] = {}  # the image that each is on

    def write(self, label: str, dataset: pydicom.Dataset) -> Path:
        path = self.folder / f"{label}.dcm"
        path.write_bytes(films.file_bytes(dataset))
        return path

    def report_on(self, SOPInstanceUID: str) -> Path | None:
        for path in self.pacs.report_files(known=self._reports):
            with config.disable_value_validation(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other modules send what no standard allows
                [study] = pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence
                [series] = study.ReferencedSeriesSequence
                self._reports[path] = str(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        return next((path for path, source in self._reports.items() if source == SOPInstanceUID), None)

    def result_on(self, SOPInstanceUID: str) -> dict[str, Any]:
        [row] = [row for row in self.node.results() if row["source"]["SOPInstanceUID"] == SOPInstanceUID]
        return row


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("e2e")
    port = free_port()
    with (
        NodeProcess(folder / "node", pacs_port=port) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.start()
        yield Clinic(node, pacs, folder)


@pytest.fixture(scope="session")
def chest(clinic: Clinic) -> Path:
    """The report on the bundled film with an opacity, as Orthanc keeps it 15 s after storescu at the latest."""
    sent = clinic.node.storescu([films.OPACITY])
    assert sent.returncode == 0, sent.stderr
    uid = pydicom.dcmread(films.OPACITY, stop_before_pixels=True).SOPInstanceUID
    path: Path = wait_for(lambda: clinic.report_on(uid), 15, "the report is in Orthanc")
    return path


@pytest.fixture(scope="session")
def sent(clinic: Clinic, chest: Path) -> dict[tuple[str, str], Path]:
    """One film of each case on each patient, all reported to Orthanc."""
    sources = {}
    for case, source in CASES.items():
        make = films.undecodable if case == "undecodable" else films.fresh
        for patient, elements in PATIENTS.items():
            sources[case, patient] = clinic.write(f"{case}-{patient}", make(source, **elements))
    for group in (("normal", "mr"), ("ct",), ("undecodable",)):  # one transfer syntax an association
        done = clinic.node.storescu([path for (case, _), path in sources.items() if case in group])
        assert done.returncode == 0, done.stderr
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sources.values()]
    wait_for(lambda: all(map(clinic.report_on, uids)), 30, "every report is in Orthanc")
    return sources


@pytest.fixture(scope="session", params=LANES)
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def target(lane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The node that most rows of bad input are given to, one after the other."""
    with target_in(tmp_path_factory.mktemp(f"target-{lane}"), lane) as target:
        yield target


@pytest.fixture(scope="session", params=["1", "2"])
def flooded(request: pytest.FixtureRequest, lane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A node of one listener, and a node of two."""
    listeners = {"RADNODE_NETWORK__LISTENERS": request.param}
    with target_in(tmp_path_factory.mktemp(f"flooded-{lane}"), lane, **listeners) as target:
        yield target
