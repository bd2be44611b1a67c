"""Debian's rsyslog as an audit repository over mutual TLS, and the schemas that audit messages are held to."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from support.node import wait_for

RSYSLOGD = "/usr/sbin/rsyslogd"
SCHEMAS = Path(__file__).parents[1] / "data" / "audit-schemas"
_MESSAGE = re.compile(
    r"<(?P<priority>\d+)>1 (?P<timestamp>\S+) (?P<host>\S+) radnode - DICOM\+RFC3881 "
    r'\[meta sequenceId="(?P<sequence>\d+)"\] \ufeff(?P<xml><\?xml .*)',
    re.DOTALL,
)
_IS_NOTHING = re.compile(r" validates$|^\[warning\] \S*jing: Unable to locate ")  # Debian's jing wants for jars
_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="256k"
       defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{pki}/ca.crt"
       defaultNetstreamDriverCertFile="{pki}/pacs.crt" defaultNetstreamDriverKeyFile="{pki}/pacs.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="raw" type="list") {{
  constant(value="\\"") property(name="rawmsg" format="json") constant(value="\\"\\n")
}}
ruleset(name="audit") {{ action(type="omfile" file="{folder}/received" template="raw") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="audit")
"""


@dataclass(frozen=True, slots=True)
class Received:
    """One message as the repository has written it down."""

    sequence: int
    priority: int
    timestamp: str
    host: str
    xml: str


class Rsyslog:
    """rsyslogd of its own configuration on loopback; what it received outlives it."""

    def __init__(self, folder: Path, port: int, pki: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        self._configuration = folder / "rsyslog.conf"
        self._configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, pki=pki))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it listens."""
        log = (self.folder / "log").open("ab")
        command = [RSYSLOGD, "-n", "-f", str(self._configuration), "-i", str(self.folder / "pid")]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        wait_for(self._listens, 20, "rsyslog listens")
        return self

    def stop(self, *, kill: bool = False) -> None:
        """End it, in order or not."""
        if self._process is not None and self._process.poll() is None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(20)

    def received(self) -> list[Received]:
        """Return the messages in the order in which they came."""
        path = self.folder / "received"
        if not path.exists():
            return []
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if " CHECKPOINT " in line:
                continue
            match = _MESSAGE.fullmatch(json.loads(line))
            assert match, line
            word = match.groupdict()
            message = Received(
                int(word["sequence"]), int(word["priority"]), word["timestamp"], word["host"], word["xml"]
            )
            found.append(message)
        return found

    def notes(self) -> bytes:
        """Return the signed checkpoints that came, as they would stand in a drawer."""
        lines = map(json.loads, (self.folder / "received").read_text(encoding="utf-8").splitlines())
        return b"".join(base64.b64decode(line.rpartition(" ")[2]) for line in lines if " CHECKPOINT " in line)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def complaints(messages: list[str], folder: Path) -> list[str]:
    """Return what jing and xmllint say against audit messages, one line each; nothing where all are valid."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, text in enumerate(messages):
        paths.append(folder / f"{number:06}.xml")
        paths[-1].write_text(text, encoding="utf-8")
    commands = [
        ["jing", "-c", str(SCHEMAS / "dicom_ps315_A511.rnc")],
        ["jing", "-c", str(SCHEMAS / "audit-message.rnc")],
        ["xmllint", "--noout", "--schema", str(SCHEMAS / "audit-message.xsd")],
    ]
    said = []
    for command in commands:
        done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=120, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if not _IS_NOTHING.search(line)]
        assert (done.returncode == 0) == (not lines), (done.returncode, lines[:5])
        said += [f"{command[0]}: {line}" for line in lines]
    return said
