"""The baton: one thread that receives computes at a time, and nobody ever waits for it for long."""

from __future__ import annotations

import threading
import time

import pytest

from radnode import baton


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baton, "PATIENCE_SECONDS", 1.0)  # far from what a busy machine may add


def holders(count: int, rounds: int, *, waits: bool) -> int:
    """Let threads hold the baton again and again; return how many were in it at once at most."""
    inside = most = 0
    guard = threading.Lock()

    def enter(by: int) -> None:
        nonlocal inside, most
        with guard:
            inside += by
            most = max(most, inside)

    def run() -> None:
        for _ in range(rounds):
            with baton.held:
                enter(1)
                time.sleep(0.0005)
                enter(-1)
                if waits:
                    with baton.waiting:
                        time.sleep(0.0005)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return most


def test_one_thread_holds_it_at_a_time() -> None:
    assert holders(3, 5, waits=False) == 1
    assert holders(3, 5, waits=True) == 1


def test_who_waits_lets_others_compute_and_takes_it_again() -> None:
    with baton.held:
        with baton.waiting:
            started = time.monotonic()
            assert holders(1, 1, waits=False) == 1
            assert time.monotonic() - started < baton.PATIENCE_SECONDS
            with baton.waiting:  # within another: of no effect
                pass
            assert free()
        assert not free()
    assert free()


def test_a_wait_that_lays_nothing_down_costs_patience_and_stops_nobody() -> None:
    with baton.held:
        started = time.monotonic()
        assert holders(1, 1, waits=True) == 1
        assert time.monotonic() - started >= baton.PATIENCE_SECONDS
    assert free()


def test_threads_that_do_not_receive_are_left_alone() -> None:
    with baton.waiting:
        pass
    assert free()


def test_an_error_lays_it_down() -> None:
    with pytest.raises(OSError, match="disk"), baton.held:
        raise OSError("disk")
    assert free()


def free() -> bool:
    """Say whether another thread could take the baton without waiting."""
    found = []

    def take() -> None:
        with baton.held:
            found.append(time.monotonic())

    started = time.monotonic()
    thread = threading.Thread(target=take)
    thread.start()
    thread.join(10)
    return found[0] - started < baton.PATIENCE_SECONDS / 2
