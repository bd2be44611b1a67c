"""The analyser: a detector that is not usable is said once, and again when something else is wrong with it."""

from __future__ import annotations

from pathlib import Path

from support import toys

from radnode.detect.analyser import RELOAD_SECONDS, Analyser
from radnode.detect.catalogue import Catalogue
from radnode.detect.decoding import DecoderChild


def test_detector_that_is_not_installed_is_said_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    now = [0.0]
    said: list[tuple[str, str]] = []
    analyser = Analyser(
        Catalogue(tmp_path),
        DecoderChild(1.0),
        device="cpu",
        threads=1,
        refused=lambda model, sentence: said.append((model, sentence)),
        clock=lambda: now[0],
    )

    def ask() -> object:
        now[0] += RELOAD_SECONDS + 1
        return analyser.load("toy")

    assert [ask() for _ in range(5)] == [None] * 5
    assert said == [("toy", "There is no model 'toy' in the models folder.")]
    weights = toys.install(tmp_path, "toy", toys.Raises()) / "weights.pt2"
    content = weights.read_bytes()
    weights.write_bytes(b"changed")
    assert [ask() for _ in range(3)] == [None] * 3
    assert [model for model, _ in said] == ["toy", "toy 0.0.1"]
    weights.write_bytes(content)
    assert ask() is not None
    assert len(said) == 2
