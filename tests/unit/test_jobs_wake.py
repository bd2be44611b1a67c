"""The bell: a hint that arrives at once, and never an error."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from radnode.jobs import wake
from radnode.jobs.wake import Bell, Sleeper


def test_ring_wakes_the_sleeper_long_before_its_time(tmp_path: Path) -> None:
    with Sleeper(tmp_path, "worker") as sleeper:
        threading.Timer(0.05, Bell(tmp_path).ring, ["worker"]).start()
        started = time.monotonic()
        assert sleeper.sleep(10)
        assert time.monotonic() - started < 2


def test_ring_before_sleep_is_not_lost_and_many_count_as_one(tmp_path: Path) -> None:
    with Sleeper(tmp_path, "worker") as sleeper:
        for _ in range(500):
            Bell(tmp_path).ring("worker")
        assert sleeper.sleep(5)
        assert not sleeper.sleep(0.01)


def test_ring_for_another_role_wakes_nobody(tmp_path: Path) -> None:
    with Sleeper(tmp_path, "worker") as sleeper:
        Bell(tmp_path).ring("deliver")
        Bell(tmp_path).ring("work")
        assert not sleeper.sleep(0.01)


def test_ring_without_listener_or_folder_is_silent(tmp_path: Path) -> None:
    Bell(tmp_path / "missing").ring("worker")
    Bell(tmp_path).ring("worker")


def test_socket_of_a_killed_process_is_removed_by_the_next_ring(tmp_path: Path) -> None:
    Sleeper(tmp_path, "worker")._socket.close()
    assert len(list(tmp_path.iterdir())) == 1
    Bell(tmp_path).ring("worker")
    assert list(tmp_path.iterdir()) == []


def test_data_folder_with_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40) / ("er" * 60)
    with Sleeper(folder, "worker") as sleeper:
        Bell(folder).ring("worker")
        assert sleeper.sleep(5)
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert list(folder.iterdir()) == []


def test_every_process_of_a_role_is_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sleeper(tmp_path, "worker") as one:
        monkeypatch.setattr(wake.os, "getpid", lambda: 1)
        with Sleeper(tmp_path, "worker") as two:
            Bell(tmp_path).ring("worker")
            assert one.sleep(5)
            assert two.sleep(5)


def test_sleep_of_less_than_nothing_returns(tmp_path: Path) -> None:
    with Sleeper(tmp_path, "worker") as sleeper:
        assert not sleeper.sleep(-5.0)


def test_one_bell_finds_whoever_came_after_its_last_ring(tmp_path: Path) -> None:
    bell = Bell(tmp_path)
    for turn in range(30):
        bell.ring("worker")
        with Sleeper(tmp_path, "worker") as sleeper:
            time.sleep(0.15 * (turn % 10 == 9))  # long enough for the bell to trust what it read
            bell.ring("worker")
            bell.ring("worker")
            assert sleeper.sleep(5)


def test_one_bell_removes_the_socket_of_the_killed_and_rings_who_took_its_place(tmp_path: Path) -> None:
    bell = Bell(tmp_path)
    Sleeper(tmp_path, "worker")._socket.close()
    time.sleep(0.15)
    bell.ring("worker")
    bell.ring("worker")
    assert list(tmp_path.iterdir()) == []
    with Sleeper(tmp_path, "worker") as sleeper:
        bell.ring("worker")
        assert sleeper.sleep(5)


def test_folder_that_was_made_again_is_found_by_the_same_bell(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    bell = Bell(folder)
    for _ in range(2):
        with Sleeper(folder, "worker") as sleeper:
            bell.ring("worker")
            assert sleeper.sleep(5)
        folder.rmdir()
        bell.ring("worker")


def test_many_threads_ring_one_bell(tmp_path: Path) -> None:
    bell, stop = Bell(tmp_path), threading.Event()

    def ring() -> None:
        while not stop.is_set():
            bell.ring("worker")

    threads = [threading.Thread(target=ring) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with Sleeper(tmp_path, "worker") as sleeper:
                assert sleeper.sleep(5)
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
