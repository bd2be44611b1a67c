"""Drift: scores are counted with their results, and compared with the deciles of the card."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from support.analyses import NO_FINDING
from support.rooms import database
from support.worker_bench import WorkerBench

from radnode.detect.drift import FEWEST, drift_of
from radnode.jobs.database import reading, transaction
from radnode.jobs.scores import DAY_SECONDS, HIGHEST, bin_of, count_score, score_histogram, score_of
from radnode.model import Analysis

DECILES = tuple(number / 10 for number in range(1, 10))


def histogram(scores: list[float]) -> dict[int, int]:
    found: dict[int, int] = {}
    for score in scores:
        found[bin_of(score)] = found.get(bin_of(score), 0) + 1
    return found


@given(st.floats(0.0, 1.0))
def test_bin_of_a_score_is_the_nearest_tenth_of_a_logit(score: float) -> None:
    number = bin_of(score)
    assert -HIGHEST <= number <= HIGHEST
    if abs(number) < HIGHEST:
        assert abs(math.log(score / (1 - score)) - math.log(score_of(number) / (1 - score_of(number)))) <= 0.0501
    assert bin_of(score_of(number)) == number


def test_scores_are_counted_by_model_and_day(tmp_path: Path) -> None:
    engine = database(tmp_path)
    with transaction(engine) as tx:
        for day, score in ((1, 0.1), (1, 0.1), (2, 0.1), (2, 0.9)):
            count_score(tx, "toy 1.0.0", score, day * DAY_SECONDS + 5.0)
        count_score(tx, "toy 1.1.0", 0.5, 2 * DAY_SECONDS)
    with reading(engine) as tx:
        assert score_histogram(tx, "toy 1.0.0", 0.0) == {bin_of(0.1): 3, bin_of(0.9): 1}
        assert score_histogram(tx, "toy 1.0.0", 2.5 * DAY_SECONDS) == {bin_of(0.1): 1, bin_of(0.9): 1}
    engine.dispose()


def test_each_result_is_counted_once_however_often_its_job_is_tried(tmp_path: Path) -> None:
    bench = WorkerBench(tmp_path)
    bench.receive(1, 2, 3)
    failures = ["1.2.3.1", "1.2.3.1", "1.2.3.3"]

    def compose(header: Dataset, _analysis: Analysis) -> None:
        if header.SOPInstanceUID in failures:
            failures.remove(header.SOPInstanceUID)
            raise RuntimeError("this time only")

    bench.compose = compose
    bench.work()
    assert failures == []
    model = f"{NO_FINDING.model.name} {NO_FINDING.model.version}"
    with reading(bench.rooms.engine) as tx:
        assert sum(score_histogram(tx, model, 0.0).values()) == 3


def test_scores_of_the_cards_patients_are_stable_and_others_are_not() -> None:
    chance = random.Random(1)  # noqa: S311 (no secret)
    same = drift_of("toy", "1.0.0", 7.0, histogram([chance.random() for _ in range(5000)]), DECILES)
    assert same.state == "stable"
    assert same.shares is not None
    assert sum(same.shares) == pytest.approx(1.0)
    assert all(abs(share - 0.1) < 0.03 for share in same.shares)
    assert same.median == pytest.approx(0.5, abs=0.03)
    higher = drift_of("toy", "1.0.0", 7.0, histogram([chance.random() ** 0.5 for _ in range(5000)]), DECILES)
    assert higher.state == "changed"
    one_place = drift_of("toy", "1.0.0", 7.0, {bin_of(0.95): FEWEST}, DECILES)
    assert one_place.index is not None
    assert one_place.index > 2.0


def test_nothing_is_said_of_few_images_and_without_a_card() -> None:
    few = drift_of("toy", "1.0.0", 7.0, {bin_of(0.95): FEWEST - 1}, DECILES)
    assert (few.state, few.index, few.images) == ("unknown", None, FEWEST - 1)
    assert drift_of("toy", "1.0.0", 7.0, {}, DECILES).shares is None
    without = drift_of("toy", "1.0.0", 7.0, {bin_of(0.2): 500}, ())
    assert (without.state, without.shares) == ("unknown", None)
    assert without.median == pytest.approx(0.2, abs=0.01)
