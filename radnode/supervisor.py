"""`radnode serve`: starts the roles as processes, restarts what dies, drains them on SIGTERM, and dies with them.

At its start and after each death it repairs what was left (`radnode.repair`). It holds no connection to a peer and
imports neither pynetdicom nor torch.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import radnode
from radnode import changes, repair
from radnode.audit import events
from radnode.errors import ConfigError, RadnodeError
from radnode.listening import Endpoints
from radnode.node import Node
from radnode.observe import configure, describe

# The sequencer stops last: the trail holds what the others did until their end.
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
        self._unrepaired: dict[Seat, int] = {}  # the dead process whose leases could not be given back yet
        self._locks: dict[str, int] = {}
        self._stop = threading.Event()
        self._log = configure("supervisor")

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Raises:
            ConfigError: another supervisor runs one of these roles on the same data folder, a rule cannot be used, or
                a port is taken.
        """
        self._leave_out_worker()
        self._lock_roles()
        if "intake" in self._roles:
            self._endpoints = Endpoints.bind(self._node.settings.node, len(self._seats["intake"]))
        self._repair()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        self._node.record(events.NODE_STARTED, self._node.actor(), version=radnode.__version__, pid=os.getpid())
        changes.note(self._node)
        for role in reversed(self._roles):
            for seat in self._seats[role]:
                self._start(seat)
        code = self._watch()
        self._drain(BRIEF_SECONDS if code else self._node.settings.node.drain_seconds + GRACE_SECONDS)
        return code

    def _leave_out_worker(self) -> None:
        """Start no worker where nothing is to be analysed; broken rules stop the node before it promises anything.

        Raises:
            ConfigError: a rule cannot be used.
        """
        if "worker" in self._roles and not self._node.has_analyses():
            self._roles.remove("worker")
            self._log.info("role_not_needed", rule="worker", message="No rule names a detector.")

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
        """Put right what processes left that can no longer live, and say it in one line."""
        repaired = repair.at_start(self._node, self._locks)
        self._log.info("started", pid=os.getpid(), version=radnode.__version__)
        if repaired != repair.Repaired():
            self._log.warning("start_repaired", **asdict(repaired))

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
        pid = child.process.pid
        try:
            repaired = repair.after_death(self._node, seat.role, pid)
        except (RadnodeError, OSError) as error:  # a full disk ends no node: `_restart` tries again
            self._unrepaired[seat] = pid
            self._log.error("role_died", rule=seat.role, exit=code, pid=pid, **describe(error))
        else:
            put_right = {"leases": repaired.leases, "stretches": repaired.stretches}
            self._log.error("role_died", rule=seat.role, exit=code, pid=pid, **put_right)

    def _restart(self, seat: Seat) -> None:
        """Start a process again; while the old leases of its role cannot be given back, wait."""
        try:
            if seat in self._unrepaired:
                repair.after_death(self._node, seat.role, self._unrepaired[seat])
                del self._unrepaired[seat]
            self._start(seat)
        except (RadnodeError, OSError) as error:  # no space, no memory, no process: later perhaps
            self._restart_at[seat] = time.monotonic() + MAX_BACKOFF_SECONDS / 10
            self._log.error("role_not_started", rule=seat.role, **describe(error))
        else:
            del self._restart_at[seat]

    def _drain(self, seconds: float) -> None:
        """Stop the roles, then the sequencer, each until its deadline; where the node cannot serve, that is near."""
        self._log.info("stopping")
        if self._endpoints is not None:
            self._endpoints.close()  # once the listeners have closed them too, nobody can connect
        children = self._children.values()
        self._end([child for child in children if child.seat.role != "sequencer"], seconds)
        self._say_stopped()
        sequencers = [child for child in children if child.seat.role == "sequencer"]
        self._end(sequencers, seconds)
        if all(child.process.returncode for child in sequencers):
            self._close_trail()
        self._log.info("stopped")

    def _end(self, children: Sequence[_Child], seconds: float) -> None:
        """Stop these processes, all at once; who has not ended at the deadline is killed: nothing promised is lost."""
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + seconds
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                self._log.warning("drain_cut_short", rule=child.seat.role, pid=child.process.pid)
            _close(child.process)

    def _close_trail(self) -> None:
        """Bring the trail to its end where the sequencer is dead and was not started again, or did not come so far."""
        try:
            trail = self._node.sequencer()
            if trail.acquire(blocking=False):  # else another supervisor's sequencer goes on
                self._node.record(events.RECORDING_STOPPED, self._node.actor(), pid=os.getpid())
                trail.close()
        except RadnodeError as error:  # the next sequencer writes what is left
            self._log.error("audit_failed", **describe(error))

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
