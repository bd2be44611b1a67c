"""What stays together when workers share the tests, and the ports of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.node import free_port
from support.workers import SHARED, SPREAD, group, turn

TESTS = Path(__file__).parents[1]
EPHEMERAL = 32768  # where Linux begins with the ports of outgoing connections


def test_every_module_that_is_named_is_there() -> None:
    modules = {path.stem for path in TESTS.rglob("test_*.py")}
    assert {*SPREAD, *(name for names in SHARED.values() for name in names)} <= modules


@pytest.mark.parametrize(
    ("node_id", "expected"),
    [
        ("tests/unit/test_x.py::test_a", "tests/unit/test_x.py"),
        ("tests/unit/test_x.py::test_a[two words-1]", "tests/unit/test_x.py"),
        ("tests/peers/test_bad_input_pdus.py::test_a[stock-0]", "target stock"),
        ("tests/peers/test_bad_input_objects.py::test_a[fast]", "target fast"),
        ("tests/peers/test_bad_input_size.py::test_a[fast-items]", "tests/peers/test_bad_input_size.py fast"),
        ("tests/peers/test_outcomes.py::test_a[mr-latin]", "clinic"),
        ("tests/peers/test_bench.py::test_a", "tests/peers/test_bench.py::test_a"),
    ],
)
def test_group_is_the_shared_node_in_its_lane_or_the_module_or_one_slow_test(node_id: str, expected: str) -> None:
    assert group(node_id) == expected


def test_slow_tests_come_first_and_quick_ones_last() -> None:
    slow, peers, quick = "tests/peers/test_bench.py::a", "tests/crash/test_crash_push.py::a", "tests/unit/test_x.py::a"
    assert sorted([quick, slow, peers], key=turn) == [slow, peers, quick]


def test_port_is_given_once_and_no_outgoing_connection_takes_it() -> None:
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == 100
    assert max(ports) < EPHEMERAL
