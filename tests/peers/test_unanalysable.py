"""`network.unanalysable`: what a modality is told about images that no detector takes, by a node that serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films
from support.node import NodeProcess

REFUSE = {"RADNODE_NETWORK__UNANALYSABLE": "refuse"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "node", overrides=REFUSE) as made:
        yield made


def test_refuse_lets_the_modality_know_before_it_sends(node: NodeProcess) -> None:
    node.start(role="intake", wait=("intake",))
    film = node.storescu([films.NORMAL])
    assert film.returncode == 0, film.stderr
    slice_ = node.storescu([films.CT[7]])
    assert slice_.returncode != 0
    assert "No Acceptable Presentation Contexts" in slice_.stdout + slice_.stderr
    assert [line["event"] for line in node.log()].count("image_received") == 1


def test_model_that_cannot_be_read_refuses_no_image(node: NodeProcess) -> None:
    next((node.folder / "models" / "cxr-opacity").rglob("model.toml")).write_text("changed")
    node.start(role="intake", wait=("intake",))
    slice_ = node.storescu([films.CT[7]])
    assert slice_.returncode == 0, slice_.stderr
    said = [line["role"] for line in node.log() if line["event"] == "model_refused"]
    assert said == ["intake"] * len(node.pids("intake"))  # each listener says it
