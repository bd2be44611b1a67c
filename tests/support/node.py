"""A real node in processes of its own, and the Debian peers around it. Everything listens on 127.0.0.1."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless

from radnode.initialise import initialise
from radnode.settings import DestinationSettings

STORESCU = "/usr/bin/storescu"  # Debian's dcmtk; pynetdicom installs a script of the same name
ORTHANC = "/usr/sbin/Orthanc"
READY_SECONDS = 90.0
REPORT_ALONE = {"RADNODE_REPORT__SECONDARY": "[]"}  # for tests that count deliveries: one a report
_PROPOSE = {JPEGBaseline8Bit: ("-xy",), JPEGLSLossless: ("-xt",)}  # else storescu proposes uncompressed ones


def _own_ports() -> Iterator[int]:
    """The ports of this process, round and round: below those of outgoing connections, no worker has another's."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 12_000 + _PORTS * (worker % 10)
    start = random.randrange(_PORTS)  # noqa: S311 (another run of the tests may be under way beside this one)
    return itertools.cycle(first + (start + number) % _PORTS for number in range(_PORTS))


_PORTS = 2_000
_ports = _own_ports()


def free_port() -> int:
    """Return a port that nothing listens on now, and that nobody else will be given or take by chance."""
    for port in itertools.islice(_ports, _PORTS):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true value of `condition`; fail after `seconds`. What takes long to ask is asked less often."""
    deadline = time.monotonic() + seconds
    while (began := time.monotonic()) < deadline:
        if value := condition():
            return value
        time.sleep(min(max(0.1, time.monotonic() - began), 1.0))
    raise AssertionError(f"not within {seconds} s: {what}")


def radnode(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command of radnode and return what came of it."""
    return subprocess.run(
        [sys.executable, "-m", "radnode", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environment or {})},
        check=False,
    )


class NodeProcess:
    """What `radnode init` makes, and `radnode serve` on a free port; a context manager that stops what it started."""

    def __init__(self, folder: Path, *, pacs_port: int | None = None, overrides: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "radnode.toml"
        self.log_path = folder.parent / f"{folder.name}.log"
        self._overrides = overrides or {}
        self._process: subprocess.Popen[bytes] | None = None
        pacs = None
        if pacs_port is not None:
            pacs = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs_port)
        umask = os.umask(0o077)
        try:
            initialise(folder, self.port, pacs)  # in this process: an interpreter takes a second to start
        finally:
            os.umask(umask)

    def start(self, *, role: str = "all", wait: Iterable[str] = ("intake", "worker")) -> Self:
        """Serve, and return when the named roles say that they are ready."""
        log = self.log_path.open("ab")
        before = len(self.log())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "radnode", "serve", "-c", str(self.config), "--role", role],
            stdout=log,
            stderr=log,
            env={**os.environ, **self._overrides},
        )
        log.close()
        for name in wait:
            event = "listening" if name == "intake" else "ready"

            def ready(name: str = name, event: str = event) -> bool:
                assert self._process is not None
                assert self._process.poll() is None, self.log_path.read_text()
                said = [line for line in self.log()[before:] if line["event"] == event and line["role"] == name]
                return len(said) >= (said[0]["count"] if said and name == "intake" else 1)

            wait_for(ready, READY_SECONDS, f"{name} is ready")
        return self

    def stop(self) -> int:
        """SIGTERM, and return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def kill(self) -> None:
        """kill -9 every process of this node at once."""
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
        wait_for(lambda: not self.pids(), 10, "every process is gone")

    def pids(self, role: str | None = None) -> list[int]:
        """Return the processes whose command line names this node's configuration, those of one role or all."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                words = line.split(b"\0")
                named = role is None or {b"radnode.process", role.encode()} <= set(words)
                if str(self.config).encode() in words and named and state != "Z":
                    found.append(int(entry.name))
        return found

    def log(self) -> list[dict[str, Any]]:
        """Return the operational log; every line must be JSON."""
        if not self.log_path.exists():
            return []
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one command on this node's configuration."""
        return radnode(*arguments, "-c", self.config)

    def results(self) -> list[dict[str, Any]]:
        """Return `results list --json`."""
        return self.rows("results", "list")

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what a listing prints with --json."""
        listed = self.run(*arguments, "--json")
        assert listed.returncode == 0, listed.stderr
        found: list[dict[str, Any]] = json.loads(listed.stdout)
        return found

    def trail(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the entries of the trail that stand in its files, of one event or all, and audit nothing."""
        lines = [
            line
            for path in sorted((self.folder / "audit").glob("trail-*.jsonl"))
            for line in path.read_bytes().split(b"\n")[:-1]
        ]
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if name is None or entry["event"].endswith(f" {name}")]

    def storescu_command(
        self, files: Sequence[Path], *, certificate: str = "modality", ae_title: str = "MODALITY1"
    ) -> list[str]:
        """Return the command line of Debian's storescu over mutual TLS; one association has one transfer syntax."""
        pki = self.folder / "pki"
        tls = ["+tls", pki / f"{certificate}.key", pki / f"{certificate}.crt", "+cf", pki / "ca.crt"]
        syntax = pydicom.filereader.read_file_meta_info(files[0]).TransferSyntaxUID
        titles = ["-aet", ae_title, "-aec", "RADNODE"]
        command = [STORESCU, "-v", "-R", *_PROPOSE.get(syntax, ()), *tls, *titles, "127.0.0.1", self.port, *files]
        return list(map(str, command))

    def storescu(self, files: Sequence[Path], **options: str) -> subprocess.CompletedProcess[str]:
        """Send files with Debian's storescu."""
        command = self.storescu_command(files, **options)
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


class Orthanc:
    """Debian's Orthanc as the receiving PACS, over mutual TLS."""

    def __init__(self, folder: Path, port: int, pki: Path, **changes: object) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._http = free_port()
        self._folder = folder
        self._config = folder / "orthanc.json"
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "Name": "PACS",
            "DicomAet": "PACS",
            "DicomPort": port,
            "DicomAlwaysAllowStore": True,
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(pki / "pacs.crt"),
            "DicomTlsPrivateKey": str(pki / "pacs.key"),
            "DicomTlsTrustedCertificates": str(pki / "ca.crt"),
            "DicomTlsRemoteCertificateRequired": True,
            "HttpPort": self._http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "OverwriteInstances": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            **changes,
        }
        self._config.write_text(json.dumps(settings))

    def start(self) -> Self:
        """Start it and wait for its REST interface."""
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen([ORTHANC, str(self._config)], stdout=log, stderr=log)
        log.close()
        wait_for(self._answers, 60, "Orthanc answers")
        return self

    def stop(self) -> None:
        """Stop it; what it stored stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def get(self, path: str) -> Any:
        """Return what its REST interface says."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """Return a resource of its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def post(self, path: str, content: object) -> Any:
        """Send JSON to its REST interface and return what it answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}", json.dumps(content).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (on this machine)
            return json.loads(answer.read())

    def delete(self, path: str) -> None:
        """Make it lose a resource."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}", method="DELETE")
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 (on this machine)

    def reports(self) -> list[Dataset]:
        """Return every structured report it holds."""
        return [pydicom.dcmread(path) for path in self.report_files()]

    def instance_count(self) -> int:
        """Return how many instances of any kind it holds."""
        return len(self.get("/instances"))

    def report_count(self) -> int:
        """Return how many structured reports it holds."""
        return len(self.post("/tools/find", {"Level": "Instance", "Query": {"Modality": "SR"}}))

    def report_files(self, known: Container[Path] = ()) -> list[Path]:
        """Write every structured report it holds, but those that are known, to a file and return the paths."""
        found = []
        for identifier in self.get("/instances"):
            path = self._folder / f"{identifier}.dcm"
            if path not in known and self.get(f"/instances/{identifier}/simplified-tags")["Modality"] == "SR":
                path.write_bytes(self.get_bytes(f"/instances/{identifier}/file"))
                found.append(path)
        return found

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return bool(self.get("/system"))
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
