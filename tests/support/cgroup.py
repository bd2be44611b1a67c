"""A control group whose memory the kernel limits: who takes more is ended by its OOM killer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_LEAVE_SECONDS = 20.0


class LimitedMemory:
    """A group of processes and what they start; what they held before they joined is not counted (cgroups(7))."""

    def __init__(self, folder: Path, events: str) -> None:
        self._folder = folder
        self._events = events

    def join(self, pids: Iterable[int]) -> None:
        """Take processes into the group."""
        for pid in pids:
            (self._folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """Return how many of its processes the OOM killer has ended."""
        words = (self._folder / self._events).read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def leave(self) -> None:
        """Hand its processes to the group above, and give it up."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while True:
            for pid in (self._folder / "cgroup.procs").read_text().split():
                with suppress(OSError):  # it has ended
                    (self._folder.parent / "cgroup.procs").write_text(pid)
            try:
                self._folder.rmdir()
            except OSError:  # one that is ending still counts
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return


@contextmanager
def limited_memory(size: int) -> Iterator[LimitedMemory]:
    """Make a group of `size` bytes; skips the test where this user may make none."""
    hierarchy, limit, events = _ROOT / "memory", "memory.limit_in_bytes", "memory.oom_control"
    if not hierarchy.is_dir():  # version 2
        hierarchy, limit, events = _ROOT, "memory.max", "memory.events"
    folder = hierarchy / f"radnode-tests-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    group = LimitedMemory(folder, events)
    try:
        if not (folder / limit).exists():
            pytest.skip("no control group limits memory here")
        (folder / limit).write_text(str(size))
        yield group
    finally:
        group.leave()
