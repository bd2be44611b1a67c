"""One image, end to end: dcmtk sends it over mutual TLS, Orthanc receives the report."""

from __future__ import annotations

from collections.abc import Iterator

import highdicom
import pytest
from support import films
from support.node import NodeProcess, Orthanc, free_port, wait_for
from support.report_checks import problems


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, Orthanc]]:
    folder = tmp_path_factory.mktemp("e2e")
    port = free_port()
    with (
        NodeProcess(folder / "node", pacs_port=port) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        node.start()
        yield node, pacs


def test_chest_film_becomes_structured_report_in_pacs_within_15_seconds(
    peers: tuple[NodeProcess, Orthanc],
) -> None:
    node, pacs = peers
    sent = node.storescu([films.OPACITY])
    assert sent.returncode == 0, sent.stderr
    [path] = wait_for(pacs.report_files, 15, "the report is in Orthanc")
    report = highdicom.sr.srread(path)
    assert problems(report) == []
