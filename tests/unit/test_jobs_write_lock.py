"""Turns of writing: one at a time, in the order they came, in time or not at all, and free when their holder dies."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.rooms import Rooms, modes

from radnode.errors import StoreUnavailable
from radnode.jobs import database, write_lock
from radnode.jobs.database import transaction
from radnode.jobs.write_lock import WriteLock

HOLDER = """
import sys, time
from pathlib import Path
from radnode.jobs.write_lock import WriteLock
lock = WriteLock(Path(sys.argv[1]))
lock.acquire(10)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db.lock"


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the turn until it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_lock_file_is_private(path: Path) -> None:
    WriteLock(path)
    assert modes([path]) == {0o600}


def test_lock_file_in_a_folder_that_is_not_there_is_store_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        WriteLock(tmp_path / "missing" / "node.db.lock")


def test_threads_take_turns_in_the_order_they_came(path: Path) -> None:
    lock, order = WriteLock(path), list[int]()

    def write(number: int) -> None:
        lock.acquire(10)
        order.append(number)
        lock.release()

    lock.acquire(1)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(lock._line) <= number:
            time.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join(10)
    assert order == list(range(20))
    lock.acquire(0)
    lock.release()


def test_turn_that_does_not_come_in_time_is_store_unavailable_among_threads(path: Path) -> None:
    lock = WriteLock(path)
    lock.acquire(1)
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        lock.acquire(0.1)
    assert 0.1 <= time.monotonic() - begun < 5
    lock.release()
    lock.acquire(0)
    lock.release()


def test_turn_that_does_not_come_in_time_is_store_unavailable_among_processes(path: Path) -> None:
    lock = WriteLock(path)
    with another_process(path):
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                lock.acquire(0.1)
            assert 0.1 <= time.monotonic() - begun < 5
    lock.acquire(10)
    lock.release()


def test_death_of_the_holder_frees_the_turn(path: Path) -> None:
    lock, came = WriteLock(path), threading.Event()

    def wait() -> None:
        lock.acquire(30)
        came.set()
        lock.release()

    with another_process(path) as holder:
        thread = threading.Thread(target=wait)
        thread.start()
        assert not came.wait(0.2)
        holder.kill()
        assert came.wait(10)
    thread.join()


def test_lock_file_that_fails_keeps_no_thread_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = WriteLock(path)
    lock.acquire(1)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "F_OFD_SETLK", -1)  # what a file system says that has lost its lock server
        with pytest.raises(StoreUnavailable, match="lock file"):
            lock.release()
    lock.acquire(0.1)
    lock.release()


def test_who_gave_up_holds_nothing(path: Path) -> None:
    lock, other = WriteLock(path), WriteLock(path)  # two open files are two processes to the kernel
    for one, two in ((lock, other), (other, lock)) * 2:
        one.acquire(5)
        with pytest.raises(StoreUnavailable):
            two.acquire(0.01)
        one.release()
        one.acquire(0)
        one.release()
        two.acquire(0)
        two.release()


def test_two_who_write_without_pause_never_meet_and_both_get_on(path: Path) -> None:
    locks, counts, stop = [WriteLock(path), WriteLock(path)], [0, 0], threading.Event()
    inside, met = list[int](), list[int]()

    def write(number: int) -> None:
        while not stop.is_set():
            locks[number].acquire(10)
            met.extend(inside)
            inside.append(number)
            time.sleep(0.0002)
            inside.remove(number)
            locks[number].release()
            counts[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in (0, 0, 1, 1)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert met == []
    assert min(counts) > 0.2 * sum(counts) > 2


def test_who_waited_in_the_anteroom_is_not_overtaken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_lock, "PATIENCE_SECONDS", 0.0)
    writer, waiter, order = WriteLock(path), WriteLock(path), list[str]()

    def wait() -> None:
        waiter.acquire(10)
        order.append("waiter")
        waiter.release()

    writer.acquire(1)
    thread = threading.Thread(target=wait)
    thread.start()
    probe = WriteLock(path)
    while not probe._occupied(write_lock._ANTEROOM):
        time.sleep(0.001)
    writer.release()
    writer.acquire(10)
    order.append("writer")
    writer.release()
    thread.join()
    assert order == ["waiter", "writer"]


def test_who_waits_for_the_anteroom_in_vain_leaves_in_time(path: Path) -> None:
    in_room, in_anteroom, third = WriteLock(path), WriteLock(path), WriteLock(path)
    in_room.acquire(1)
    thread = threading.Thread(target=in_anteroom.acquire, args=(10,))
    thread.start()
    while not third._occupied(write_lock._ANTEROOM):
        time.sleep(0.001)
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        third.acquire(0.1)
    assert 0.1 <= time.monotonic() - begun < 5
    in_room.release()
    thread.join()
    in_anteroom.release()
    third.acquire(0)
    third.release()


def test_every_writer_of_a_node_takes_the_turn_and_readers_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(tmp_path)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with another_process(tmp_path / "node.db.lock"):
        with pytest.raises(StoreUnavailable), transaction(rooms.engine):
            pass
        with pytest.raises(StoreUnavailable):
            rooms.keys.of_study("a")
        assert rooms.count("jobs") == 0
    monkeypatch.setattr(database, "BUSY_SECONDS", 10)
    assert rooms.keys.of_study("a")
    with pytest.raises(ZeroDivisionError), transaction(rooms.engine):
        raise ZeroDivisionError
    with transaction(rooms.engine):  # the one before gave its turn back
        pass
    rooms.close()
