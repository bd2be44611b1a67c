"""A node that only forwards, and one whose destination was renamed: what waits is said, and keeps no image out."""

from __future__ import annotations

from pathlib import Path

from support import films
from support.crash import CrashNode, Ledger
from support.node import wait_for


def test_node_without_detectors_runs_no_worker_accepts_on_and_says_what_waits_for_a_name_that_is_gone(
    tmp_path: Path,
) -> None:
    films_of_a_day = [films.fresh(films.NORMAL) for _ in range(3)]
    overrides = {"RADNODE_QUEUE__MAX_WAITING": "1", "RADNODE_NETWORK__LISTENERS": "1"}
    with CrashNode(tmp_path / "node", pacs_port=1, overrides=overrides) as node:
        text = node.config.read_text()
        text = text.replace('detect = ["cxr-opacity"]', "detect = []").replace("forward = []", 'forward = ["pacs"]')
        node.config.write_text(text)
        node.start(wait=("intake", "deliver"))
        ledger = Ledger(node, films_of_a_day)
        ledger.push(20)
        assert len(ledger.promised) == 3
        assert node.jobs() == {("forward", "ready"): 3} or node.jobs()["forward", "leased"]
        assert len(node.events("role_not_needed")) == 1
        assert node.pid("worker") is None
        assert not node.events("refusing_images")
        assert node.stop() == 0

        node.config.write_text(text.replace('"pacs"', '"archive"'))
        node.start(wait=("intake", "deliver"))
        [line] = wait_for(lambda: node.events("destination_unknown"), 10, "it is said at the start")
        assert (line["destination"], line["count"]) == ("pacs", 3)
        checked = node.run("check").stdout
        assert "BAD  destination pacs: 3 wait for it" in checked
        assert node.run("jobs", "discard", "--destination", "pacs").stdout == "3 jobs are discarded.\n"
        assert not node.jobs()
        assert node.stop() == 0
