"""A node that delivers to a PACS, and dcmtk's storescp as that PACS, over mutual TLS."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STORESCP = "/usr/bin/storescp"  # Debian's dcmtk; pynetdicom installs a script of the same name
START_SECONDS = 10.0
_TAKEN = re.compile(rb"Affected SOP Instance UID +: ([0-9.]+)")


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def made_node(folder: Path, port: int) -> Path:
    """Make a node whose destination `pacs` is on this port; return its configuration."""
    made = [sys.executable, "-m", "radnode", "init", str(folder), "--pacs", f"PACS@127.0.0.1:{port}"]
    subprocess.run(made, check=True, capture_output=True)
    return folder / "radnode.toml"


@contextmanager
def receiving_pacs(port: int, pki: Path) -> Iterator[Callable[[], list[str]]]:
    """Run storescp, which keeps nothing; gives a function that says which SOP Instance UIDs it was sent."""
    log = pki.parent / "storescp.log"
    tls = ["+tls", str(pki / "pacs.key"), str(pki / "pacs.crt"), "+cf", str(pki / "ca.crt")]
    with log.open("wb") as output:
        command = [STORESCP, "-d", "--ignore", *tls, "-aet", "PACS", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError("storescp did not start")
            time.sleep(0.05)
        yield lambda: [uid.decode() for uid in _requests(log.read_bytes())]
    finally:
        server.terminate()
        server.wait(30)


def _requests(log: bytes) -> list[bytes]:
    """Return the UIDs of the requests; the responses, which repeat them, are left out."""
    parts = log.split(b"Message Type                  : ")
    found = (_TAKEN.search(part) for part in parts if part.startswith(b"C-STORE RQ"))
    return [match[1] for match in found if match is not None]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
