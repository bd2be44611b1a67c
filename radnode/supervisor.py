"""`radnode serve`: starts the roles as processes, restarts what dies, drains them on SIGTERM, and dies with them.

At its start it repairs what a crash left: leases of dead processes and objects that no row names. It holds no
connection to a peer and imports neither pynetdicom nor torch.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import radnode
from radnode.audit import events
from radnode.errors import ConfigError, RadnodeError
from radnode.listening import Endpoints
from radnode.node import Node
from radnode.observe import configure, describe

# The order in which they stop: who brings work before who does it, the trail after all that is recorded in it.
ORDER = ("intake", "worker", "deliver", "sequencer")
CONFIG_EXIT = ConfigError.exit_code
POLL_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a role that ran this long starts again at once
GRACE_SECONDS = 5.0
BRIEF_SECONDS = 1.0  # where the node could not serve, no role holds anything that a crash would lose


class Seat(NamedTuple):
    """What one process is for: a role, and which of the processes of that role it is, from 0 on."""

    role: str
    number: int


@dataclass(slots=True)
class _Child:
    seat: Seat
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)


class Supervisor:
    """The processes of one node."""

    def __init__(self, config: Path, node: Node, roles: Sequence[str]) -> None:
        self._config = config.resolve()
        self._node = node
        self._run = node.settings.data_dir / "run"
        self._roles = [role for role in ORDER if role in roles or role == "sequencer"]
        self._seats = {role: [Seat(role, number) for number in range(self._count(role))] for role in self._roles}
        self._endpoints: Endpoints | None = None
        self._children: dict[Seat, _Child] = {}
        self._restart_at: dict[Seat, float] = {}
        self._backoff: dict[Seat, float] = {}
        self._locks: dict[str, int] = {}
        self._stop = threading.Event()
        self._log = configure("supervisor")

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Raises:
            ConfigError: another supervisor runs one of these roles on the same data folder, a rule cannot be used, or
                a port is taken.
        """
        _ = self._node.rules  # broken ones stop the node before it promises to follow them
        self._lock_roles()
        if "intake" in self._roles:
            self._endpoints = Endpoints.bind(self._node.settings.node, len(self._seats["intake"]))
        self._repair()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        self._node.record(events.NODE_STARTED, self._node.actor(), version=radnode.__version__, pid=os.getpid())
        for role in reversed(self._roles):
            for seat in self._seats[role]:
                self._start(seat)
        code = self._watch()
        self._drain(BRIEF_SECONDS if code else self._node.settings.node.drain_seconds + GRACE_SECONDS)
        return code

    def _count(self, role: str) -> int:
        return self._node.settings.network.processes if role == "intake" else 1

    def _lock_roles(self) -> None:
        """Take each role's lock; a role's process holds it too, so that it outlives a supervisor that was killed."""
        folder = self._run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in self._roles:
            if role == "sequencer":
                continue  # several stand by; the trail's own lock decides
            lock = os.open(folder / f"{role}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            deadline = time.monotonic() + self._node.settings.node.drain_seconds + 2 * GRACE_SECONDS
            while not _locked(lock):
                if _alive(lock) or time.monotonic() > deadline:
                    raise ConfigError(f"A node already runs the role {role} on {folder.parent}; stop it first.")
                time.sleep(POLL_SECONDS)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            self._locks[role] = lock

    def _repair(self) -> None:
        """Give back the leases of processes that can no longer live, and the room of objects that no row names."""
        leases = sum(self._node.queue.recover(role) for role in self._roles)
        leftovers = self._node.sweep()
        for role in self._locks:
            for socket in self._run.glob(f"{role}-*.sock"):
                socket.unlink()
        self._log.info("started", pid=os.getpid(), version=radnode.__version__)
        if leases or leftovers:
            self._log.warning("repaired", job=leases, count=leftovers)

    def _start(self, seat: Seat) -> None:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # spinning threads starve a listener beside them
        place = [seat.number, len(self._seats[seat.role])]
        shared = self._endpoints.descriptors if seat.role == "intake" and self._endpoints is not None else []
        process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", "radnode.process", seat.role, str(self._config), *map(str, place + shared)],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[*shared, *([self._locks[seat.role]] if seat.role in self._locks else [])],
        )
        self._children[seat] = _Child(seat, process)

    def _watch(self) -> int:
        """Restart what dies until told to stop; a role that cannot use its configuration ends the node."""
        while not self._stop.wait(POLL_SECONDS):
            for child in list(self._children.values()):
                code = child.process.poll()
                if code is None:
                    continue
                if code == CONFIG_EXIT:
                    return code
                self._bury(child, code)
            for seat in [seat for seat, due in self._restart_at.items() if time.monotonic() >= due]:
                self._restart(seat)
        return 0

    def _bury(self, child: _Child, code: int) -> None:
        """Give back what a dead process held and plan its successor, which starts once that has been given back."""
        seat = child.seat
        del self._children[seat]
        _close(child.process)
        steady = time.monotonic() - child.started > STEADY_SECONDS
        backoff = 0.0 if steady else self._backoff.get(seat, 0.0)
        self._backoff[seat] = min(MAX_BACKOFF_SECONDS, max(0.5, 2 * backoff))
        self._restart_at[seat] = time.monotonic() + backoff
        try:
            for socket in self._run.glob(f"{seat.role}-{child.process.pid}-*.sock"):
                socket.unlink(missing_ok=True)
            self._node.sweep()
            leases = self._node.queue.release(seat.role)
        except (RadnodeError, OSError) as error:  # a full disk ends no node: `_restart` asks again
            self._log.error("role_died", rule=seat.role, exit=code, pid=child.process.pid, **describe(error))
        else:
            self._log.error("role_died", rule=seat.role, exit=code, pid=child.process.pid, count=leases)

    def _restart(self, seat: Seat) -> None:
        """Start a process again; while the old leases of its role cannot be given back, wait."""
        try:
            self._node.queue.release(seat.role)
            self._start(seat)
        except (RadnodeError, OSError) as error:  # no space, no memory, no process: later perhaps
            self._restart_at[seat] = time.monotonic() + MAX_BACKOFF_SECONDS / 10
            self._log.error("role_not_started", rule=seat.role, **describe(error))
        else:
            del self._restart_at[seat]

    def _drain(self, seconds: float) -> None:
        """Stop the roles one after the other, each until its deadline; where the node cannot serve, that is near."""
        self._log.info("stopping")
        if self._endpoints is not None:
            self._endpoints.close()  # once the listeners have closed them too, nobody can connect
        for role in self._roles:
            if role == "sequencer":
                self._say_stopped()
            processes = [child.process for child in self._children.values() if child.seat.role == role]
            for process in processes:
                process.terminate()
            deadline = time.monotonic() + seconds
            for process in processes:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                _close(process)
        self._log.info("stopped")

    def _say_stopped(self) -> None:
        try:
            self._node.record(events.NODE_STOPPED, self._node.actor(), pid=os.getpid())
        except RadnodeError as error:  # the trail then shows a start without a stop, as after a crash
            self._log.error("audit_failed", **describe(error))


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(lock: int) -> bool:
    """Say whether the supervisor that wrote its number into a lock file still lives."""
    number = os.pread(lock, 20, 0)
    try:
        return number.isdigit() and _state(int(number)) != "Z"  # a zombie is dead, whoever has not waited for it
    except OSError:
        return False


def _state(pid: int) -> str:
    """Return the state letter of a process (proc(5), /proc/pid/stat)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
