"""A version in the shadow: it sees what the active one sees, its word is sealed, compared, and delivered to nobody."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films, toys
from support.ct import CTSeries
from support.series_bench import QUIET, SeriesBench
from torch import nn

from radnode.audit.events import Actor
from radnode.detect.analyser import load_detector
from radnode.detect.comparison import Pair, compare, compared
from radnode.detect.lifecycle import Lifecycle
from radnode.errors import NotFoundError
from radnode.jobs.shadows import shadow_results_of
from radnode.model import JobKind
from radnode.purge import Purge
from radnode.settings import RuleSettings

ACTIVE, SHADOW = -3.0, 1.0  # logits
RULE = RuleSettings(match={"Modality": "CR"}, detect=("toy",), deliver=("pacs",))
HOW = {"percentiles": [0.0, 100.0], "threshold": 0.5}


def sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


class RaisesAlways(toys.Says):
    """Answers a blank image and fails on any other."""

    def forward(self, x: toys.Tensor) -> tuple[toys.Tensor, toys.Tensor]:
        logits, heat = super().forward(x)
        return logits, heat + nn.functional.avg_pool2d(x[:, 0], 8).amax() / 0.0 * 0.0


@pytest.fixture(scope="module")
def programs() -> dict[str, bytes]:
    modules = {"1.0.0": toys.Says(ACTIVE), "1.1.0": toys.Says(SHADOW), "1.2.0": RaisesAlways(0.0)}
    return {version: toys.program(module) for version, module in modules.items()}


@pytest.fixture
def bench(tmp_path: Path, programs: dict[str, bytes]) -> Iterator[SeriesBench]:
    with SeriesBench(tmp_path, rules=(RULE,)) as found:
        toys.trust(found.models)
        for version, weights in programs.items():
            toys.package(tmp_path / version, "toy", weights, version=version, **HOW)
            lifecycle(found).add(tmp_path / version)
        lifecycle(found).activate("toy", "1.0.0")
        yield found


def lifecycle(bench: SeriesBench) -> Lifecycle:
    stores = bench.rooms.stores
    return Lifecycle(
        stores, bench.models, Actor(user="erika"), lambda path: load_detector(path, bench.models, "cpu", 1) and None
    )


def begin(bench: SeriesBench, version: str) -> None:
    lifecycle(bench).shadow("toy", version)
    bench.analyser.refresh()


def send(bench: SeriesBench, count: int) -> list[str]:
    found = bench.receive(*(films.fresh(films.NORMAL, PatientID=f"P{number}") for number in range(count)))
    bench.look()
    return found


def test_shadow_is_compared_and_neither_listed_nor_delivered(bench: SeriesBench) -> None:
    begin(bench, "1.1.0")
    instances = send(bench, 5)
    assert [(item["model"]["version"], item["outcome"]) for item in bench.documents()] == [("1.0.0", "no_finding")] * 5
    delivered = {row.subject for row in bench.jobs(JobKind.DELIVER)}
    assert delivered == {item["id"] for item in bench.documents()}
    found = compare(bench.rooms.stores, "toy", "1.1.0", 100)
    assert (found.images, found.both, found.only_active, found.only_shadow, found.neither) == (5, 0, 0, 5, 0)
    assert (found.beside, found.agreement, found.without_result) == (("1.0.0",), 0.0, {})
    assert found.mean_active == pytest.approx(sigmoid(ACTIVE), abs=1e-6)
    assert found.mean_difference == pytest.approx(sigmoid(SHADOW) - sigmoid(ACTIVE), abs=1e-6)
    assert {item.result for item in found.furthest} == delivered
    with bench.rooms.engine.connect() as tx:
        rows = shadow_results_of(tx, "toy 1.1.0", 100)
    assert {row.instance for row in rows} == set(instances)
    document = json.loads(bench.rooms.vault.get(rows[0].object_id))
    assert document["shadow"] is True
    looked = [entry for entry in bench.rooms.entries() if entry["detail"].get("command") == "shadow"]
    assert {entry["instance"] for entry in looked} == set(instances)
    assert {(entry["event"], entry["model"]) for entry in looked} == {("110103 image_analysed", "toy 1.1.0")}


def test_shadow_ends_with_its_switch_and_with_its_activation(bench: SeriesBench) -> None:
    begin(bench, "1.1.0")
    send(bench, 1)
    lifecycle(bench).shadow("toy", None)
    bench.analyser.refresh()
    send(bench, 1)
    assert compare(bench.rooms.stores, "toy", "1.1.0", 100).images == 1
    begin(bench, "1.1.0")
    lifecycle(bench).activate("toy", "1.1.0")
    bench.analyser.refresh()
    send(bench, 1)
    assert compare(bench.rooms.stores, "toy", "1.1.0", 100).images == 1
    assert sorted(item["model"]["version"] for item in bench.documents()) == ["1.0.0", "1.0.0", "1.1.0"]


def test_shadow_that_fails_harms_nothing_and_is_counted(bench: SeriesBench) -> None:
    begin(bench, "1.2.0")
    send(bench, 3)
    assert [item["outcome"] for item in bench.documents()] == ["no_finding"] * 3
    found = compare(bench.rooms.stores, "toy", "1.2.0", 100)
    assert (found.images, found.without_result, found.agreement) == (3, {"model_output_invalid": 3}, None)


def test_purged_study_takes_what_the_shadow_said_with_it(bench: SeriesBench) -> None:
    begin(bench, "1.1.0")
    send(bench, 2)
    purge = Purge(bench.rooms.stores)
    for study in {entry["study"] for entry in bench.rooms.entries() if entry["study"]}:
        purge.study(study, Actor(user="erika"), "request")
    purge.reclaim()
    with pytest.raises(NotFoundError, match="has looked at nothing"):
        compare(bench.rooms.stores, "toy", "1.1.0", 100)
    assert bench.rooms.kept_objects() == []


def test_series_are_looked_at_in_the_shadow_too(tmp_path: Path) -> None:
    rule = RuleSettings(match={"Modality": "CT"}, detect=("toy-bright",), deliver=("pacs",))
    with SeriesBench(tmp_path, toys.Bright(), rules=(rule,)) as bench:
        weights = (bench.models / "toy-bright" / "0.0.1" / "weights.pt2").read_bytes()
        cycle = lifecycle(bench)
        cycle.add(toys.series_package(tmp_path / "next", "toy-bright", weights, version="0.0.2"))
        cycle.shadow("toy-bright", "0.0.2")
        bench.analyser.refresh()
        bench.receive(*CTSeries(bright=[4, 5]).slices(1, 12))
        bench.work(QUIET + 2)
        found = compare(bench.rooms.stores, "toy-bright", "0.0.2", 100)
        assert (found.images, found.both, found.agreement, found.largest_difference) == (1, 1, 1.0, 0.0)
        assert [item["model"]["version"] for item in bench.documents()] == ["0.0.1"]


def test_figures_of_a_comparison_are_those_of_the_textbook() -> None:
    def pair(active: bool, shadow: bool, score: float) -> Pair:
        def said(finding: bool, score: float) -> dict[str, object]:
            outcome = "finding" if finding else "no_finding"
            common = {"outcome": outcome, "score": score, "peak": [0.0, 3.0], "model": {"version": "1"}, "reason": None}
            return {**common, "peak": [4.0, 0.0]} if score == 0.5 else common

        return Pair("i", said(active, 0.5), said(shadow, score))

    counts = {(True, True): 20, (True, False): 5, (False, True): 10, (False, False): 15}
    pairs = [pair(*both, 0.75) for both, count in counts.items() for _ in range(count)]
    found = compared("toy", "2", pairs, lambda _pair: "r")
    assert (found.both, found.only_active, found.only_shadow, found.neither) == (20, 5, 10, 15)
    assert found.agreement == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)  # chance agrees on a half: (0.7 - 0.5) / (1 - 0.5)
    assert (found.mean_difference, found.largest_difference, found.peaks_apart) == (0.25, 0.25, 5.0)
    assert len(found.furthest) == 5
    assert compared("toy", "2", [pair(True, True, 0.5)], lambda _pair: "r").kappa is None
