"""kill -9 of the whole node at each step of a series: "The life of a series" in docs/life-of-an-image.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from support import toys
from support.crash import CrashNode, Ledger, report_counts, sources
from support.ct import CTSeries
from support.failpoints import Failpoints
from support.node import REPORT_ALONE, Orthanc, free_port, wait_for

RULE = """
[[rules]]
match = { Modality = "CT" }
detect = ["toy-bright"]
deliver = ["pacs"]
"""
# What a kill leaves: the job of the series, and whether the series waits.
LEFT = {
    "series-uncommitted": (None, 1),
    "series-completed": ("ready", 0),
    "series-leased": ("leased", 0),
    "series-detected": ("leased", 0),
}


@dataclass
class Site:
    """A node with a detector of whole series, its PACS, and the series that were sent: their instances in order."""

    node: CrashNode
    failpoints: Failpoints
    pacs: Orthanc
    series: list[list[str]] = field(default_factory=list)

    def left(self) -> tuple[str | None, int]:
        """What there is of the newest series."""
        rows = self.node.query("SELECT state FROM jobs WHERE kind = 'series' ORDER BY job DESC")
        state = str(rows[0][0]) if len(rows) == len(self.series) else None
        [(waiting,)] = self.node.query("SELECT count(*) FROM series WHERE due IS NOT NULL")
        return state, waiting


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("steps"), free_port()
    failpoints = Failpoints(folder / "failpoints")
    overrides = {"RADNODE_COMPLETION__QUIET_SECONDS": "1", **REPORT_ALONE, **failpoints.environment}
    with (
        CrashNode(folder / "node", pacs_port=port, overrides=overrides) as node,
        Orthanc(folder / "pacs", port, node.folder / "pki") as pacs,
    ):
        toys.install_series(node.folder / "models", "toy-bright", toys.Bright())
        text = node.config.read_text()
        assert "match = {} " in text
        node.config.write_text(text.replace("match = {} ", 'match = { Modality = "DX" } ') + RULE)
        node.start(wait=("intake",))
        yield Site(node, failpoints, pacs)


@pytest.mark.parametrize("place", LEFT)
def test_kill_at_a_step_of_a_series_leaves_what_its_row_says_and_gives_one_report(site: Site, place: str) -> None:
    slices = CTSeries(bright=[2]).slices(1, 4)
    site.series.append([str(item.SOPInstanceUID) for item in slices])
    Ledger(site.node, slices).push(60)
    wait_for(lambda: site.node.jobs()["analyse", "done"] == 4 * len(site.series), 40, "the images were looked at")
    site.failpoints.arm(place, "STOP")
    wait_for(lambda: site.failpoints.hit(place), 40, f"somebody comes by {place}")
    site.node.kill_everything()
    assert site.left() == LEFT[place]
    site.node.start(wait=("intake",))
    done = {("series", "done"): len(site.series), ("deliver", "done"): len(site.series)}
    wait_for(lambda: done.items() <= site.node.jobs().items(), 60, "its report was delivered")


def test_each_series_has_one_report_on_all_of_its_images_and_the_node_is_sound(site: Site) -> None:
    assert sorted(sources(report) for report in site.pacs.reports()) == sorted(site.series)
    assert report_counts(site.pacs) == len(LEFT)
    assert site.node.stop() == 0
    site.node.assert_sound()
