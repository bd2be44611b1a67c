"""A node with a detector of whole CT series, its PACS, and the series that is sent to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from support import toys
from support.crash import CrashNode, sources
from support.ct import CTSeries
from support.films import file_bytes
from support.node import Orthanc, free_port

RULE = """
[[rules]]
match = {{ Modality = "CT" }}
detect = ["{detector}"]
deliver = ["pacs"]
"""


@dataclass
class SeriesSite:
    """Who takes part, and what is asked of them."""

    node: CrashNode
    pacs: Orthanc
    folder: Path
    series: CTSeries

    def send(self, slices: list[Dataset]) -> None:
        """Send slices with Debian's storescu over one association."""
        paths = []
        for item in slices:
            paths.append(self.folder / f"{item.SOPInstanceUID}.dcm")
            paths[-1].write_bytes(file_bytes(item))
        sent = self.node.storescu(paths)
        assert sent.returncode == 0, sent.stderr

    def jobs(self) -> list[dict[str, object]]:
        """Return what `radnode jobs list --all --json` says of series."""
        listed = self.node.run("jobs", "list", "--all", "--json")
        assert listed.returncode == 0, listed.stderr
        return [row for row in json.loads(listed.stdout) if row["kind"] == "series"]

    def reports(self) -> list[Path]:
        """Return the reports at the PACS, that on the fewest images first."""
        return sorted(self.pacs.report_files(), key=lambda path: len(sources(pydicom.dcmread(path))))


@contextmanager
def series_site(
    folder: Path,
    quiet_seconds: float,
    series: CTSeries,
    detector: str = "toy-bright",
    secondary: Sequence[str] = ("sc",),
) -> Iterator[SeriesSite]:
    """Serve; a series is complete when none of its slices has come for `quiet_seconds`."""
    port = free_port()
    settings = {
        "RADNODE_COMPLETION__QUIET_SECONDS": str(quiet_seconds),
        "RADNODE_REPORT__SECONDARY": json.dumps(secondary),
    }
    with (
        CrashNode(folder / "node", pacs_port=port, overrides=settings) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        toys.install_series(node.folder / "models", "toy-bright", toys.Bright())
        text = node.config.read_text().replace("match = {} ", 'match = { Modality = "DX" } ')
        node.config.write_text(text + RULE.format(detector=detector))
        node.start()
        yield SeriesSite(node, pacs, folder, series)
