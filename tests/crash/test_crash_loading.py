"""Row 24 of "Bad input and what it gets" (security.md): a model that hangs while it is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from support import toys
from support.crash import CrashNode, Ledger
from support.node import wait_for

from radnode.detect.loading import AGAIN_SECONDS

RULE = """
[[rules]]
match = { Modality = "CR" }
detect = ["toy-nan"]
"""


def test_row_24_model_that_hangs_while_it_loads_ends_one_worker_and_its_images_are_reported_as_failed(
    tmp_path: Path,
) -> None:
    overrides = {"RADNODE_DETECT__LOAD_SECONDS": "12", "RADNODE_DETECT__MAX_ATTEMPTS": "2"}
    with CrashNode(tmp_path / "node", overrides=overrides) as node:
        weights = toys.install(node.folder / "models", "toy-nan", toys.NotANumber()) / "weights.pt2"
        content = weights.read_bytes()
        weights.unlink()
        os.mkfifo(weights)  # as a network file system does that has lost its server: whoever reads waits
        text = node.config.read_text()
        node.config.write_text(text[: text.index("[[rules]]")] + RULE + text[text.index("[keys]") :])
        node.start(wait=("intake",))
        film = toys.film("any")
        ledger = Ledger(node, [film])
        ledger.push(20)  # accepted, whatever the model does
        wait_for(lambda: node.jobs()["analyse", "dead"], 60, "its tries are used up")
        (result,) = node.results()
        assert (result["outcome"], result["reason"]) == ("failed", "model_unavailable")
        assert [line["model"] for line in node.events("detector_stuck")] == ["toy-nan 0.0.1"]  # and no second time
        assert "hung when it was loaded" in node.events("model_refused")[-1]["message"]

        weights.unlink()
        weights.write_bytes(content)  # mended, and ten minutes pass
        (mark,) = (node.folder / "run").glob("hung-*")
        past = mark.stat().st_mtime - AGAIN_SECONDS
        os.utime(mark, (past, past))
        (job,) = [row["job"] for row in node.rows("jobs", "list")]

        def seen() -> bool:
            node.run("jobs", "retry", str(job))
            node.await_idle(30)
            return bool(node.results()[0]["outcome"] == "no_finding")

        wait_for(seen, 120, "the mended model has seen the image")
        assert not mark.exists()
        assert node.stop() == 0
