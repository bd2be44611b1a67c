"""What goes on behind a worker: one thing at a time, errors come out, and results are those of a worker without it."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from support import toys
from support.analyses import NO_FINDING
from support.series_bench import SeriesBench
from support.worker_bench import WorkerBench

from radnode.detect.behind import Behind, ahead
from radnode.errors import StoreUnavailable
from radnode.model import JobKind
from radnode.settings import RuleSettings


def test_next_thing_begins_when_the_one_before_has_ended() -> None:
    order: list[str] = []
    go = threading.Event()

    def first() -> None:
        assert go.wait(10)
        order.append("first")

    behind = Behind()
    behind.run(first)
    assert order == []
    go.set()
    behind.run(lambda: order.append("second"))
    behind.settle()
    assert order == ["first", "second"]


def test_error_comes_out_once_at_the_next_call_which_begins_nothing() -> None:
    def fail() -> None:
        raise StoreUnavailable("full")

    behind, begun = Behind(), []
    behind.run(fail)
    with pytest.raises(StoreUnavailable):
        behind.run(lambda: begun.append(1))
    assert begun == []
    behind.settle()


def test_worker_detects_one_batch_while_the_one_before_is_committed_and_both_are(tmp_path: Path) -> None:
    bench = WorkerBench(tmp_path, batch=1)
    bench.worker._behind = Behind()
    detecting = threading.Event()
    bench.receive(1, 2)

    def compose(_header: object, _analysis: object) -> None:
        assert detecting.wait(10)

    def answer() -> object:
        detecting.set()
        return NO_FINDING

    bench.compose = compose
    bench.analyser.answers["1.2.3.2"] = answer
    assert bench.worker.step() == 1
    assert [row.state for row in bench.jobs()].count("leased") == 1  # its report waits for the next network
    assert bench.worker.step() == 1
    bench.worker.settle()
    assert set(bench.outcomes()) == {"1.2.3.1", "1.2.3.2"}
    assert {row.state for row in bench.jobs()} == {"done"}
    assert len(bench.jobs(JobKind.DELIVER)) == 2


def test_trouble_while_a_batch_is_committed_reaches_who_steps(tmp_path: Path) -> None:
    bench = WorkerBench(tmp_path, batch=1)
    bench.worker._behind = Behind()
    bench.receive(1)

    def fail(_header: object, _analysis: object) -> None:
        bench.rooms.engine.dispose()
        (bench.rooms.folder / "node.db").rename(bench.rooms.folder / "gone.db")
        raise StoreUnavailable("away")

    bench.compose = fail
    bench.worker.step()
    with pytest.raises(StoreUnavailable):
        bench.worker.settle()


def test_next_is_under_way_while_the_caller_has_the_last_and_order_is_kept() -> None:
    begun: list[int] = []
    second = threading.Event()

    def act(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
        return number

    found = ahead([partial(act, number) for number in range(3)])
    assert next(found) == 0
    assert second.wait(10)
    assert list(found) == [1, 2]
    assert begun == [0, 1, 2]


def test_what_one_raises_is_raised_in_its_place_and_nothing_after_it_is_begun() -> None:
    begun: list[int] = []

    def act(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise StoreUnavailable("away")
        return number

    found = ahead([partial(act, number) for number in range(4)])
    assert next(found) == 0
    with pytest.raises(StoreUnavailable):
        next(found)
    assert begun == [0, 1]


def test_batch_that_is_decoded_in_parts_answers_each_image_as_one_that_is_not(tmp_path: Path) -> None:
    answers = []
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        rule = RuleSettings(match={"Modality": "CR"}, detect=("toy",))
        with SeriesBench(tmp_path / name, rules=(rule,)) as bench:
            toys.install(bench.models, "toy", toys.Raises())
            bench.worker._behind = Behind() if name == "parts" else None
            films = [toys.film("any", trapped=number in {1, 4}) for number in range(5)]
            for number, film in enumerate(films):
                film.SOPInstanceUID = f"1.2.{number}"
            bench.receive(*films)
            bench.worker.step()
            bench.worker.settle()
            found = {item["source"]["SOPInstanceUID"]: item for item in bench.documents()}
            answers.append({uid: (item["outcome"], item["score"]) for uid, item in found.items()})
    assert answers[0] == answers[1]
    assert len(answers[0]) == 3  # the trapped ones are tried again
