"""A server's processes: a session of their own, so that CPU time and memory of the whole tree can be read.

CPU time is in seconds and includes children that have ended; memory is in bytes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import ROOT

START_SECONDS = 60.0
_TICK = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"


class Tree:
    """A command and everything it starts."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> None:
        python_path = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.PIPE,  # a role that is started alone ends with it
                stdout=out,
                stderr=out,
                cwd=log.parent,
                env={**os.environ, "PYTHONPATH": python_path, **environment},
                start_new_session=True,
            )
        self._log = log

    def wait_listening(self, port: int) -> None:
        """Wait until something listens on the port.

        Raises:
            RuntimeError: the command ended, or a minute passed; the text has the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("a server did not start: " + self._log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        self.settle()

    def settle(self) -> float:
        """Wait until it does next to nothing (at most 10 s) and return the CPU seconds it has used by then."""
        used = self.cpu_seconds()
        for _ in range(40):
            time.sleep(0.25)
            before, used = used, self.cpu_seconds()
            if used - before <= 0.02:
                break
        return used

    def cpu_seconds(self) -> float:
        """User and system time of all processes, of reaped children too."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self._stats()) / _TICK

    def peak_bytes(self) -> int:
        """Return the sum over the processes of the most memory that each ever held (VmHWM)."""
        return sum(status_bytes(pid, "VmHWM") for pid, _ in self._stats())

    def pids(self, what: str) -> list[int]:
        """Return the processes whose command line has `what` in it."""
        return [pid for pid, _ in self._stats() if what in _command_line(pid)]

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the first process."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM to the first process, then SIGKILL to what is left of its session."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        for pid, _ in self._stats():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)

    def _stats(self) -> Iterator[tuple[int, list[str]]]:
        """Yield process id and the fields of /proc/PID/stat from the state on (proc(5): field 3)."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self._process.pid:  # its session
                    yield int(entry.name), fields


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    """Say whether a socket listens there, without connecting to it."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] == _LISTEN for line in lines)


def status_bytes(pid: int, key: str) -> int:
    """Return a figure of /proc/PID/status, like VmRSS; 0 when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
