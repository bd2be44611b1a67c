"""Every input of the fuzzers' corpus, those that once were findings included, through its target, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fuzz_targets import TARGETS

CORPUS = Path(__file__).parents[1] / "corpus"
SEEDS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_seeds_and_every_folder_of_seeds_a_target() -> None:
    assert {path.parent.name for path in SEEDS} == set(TARGETS)
    assert sum(path.stat().st_size for path in SEEDS) < 300_000


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_seed_is_no_finding(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())
