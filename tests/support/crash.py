"""What the crash tier needs: process trees, a client that keeps a ledger, and what a PACS and a node hold after all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from radnode.errors import DestinationRefused, DestinationUnavailable
from radnode.network.storage_scu import DestinationAssociation
from radnode.settings import DestinationSettings
from support.films import file_bytes
from support.node import NodeProcess, Orthanc, wait_for
from support.segments import extents, half_written

SUCCESS = 0x0000


def processes() -> dict[int, tuple[int, str]]:
    """Return (parent, state) of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            found[int(entry.name)] = int(parent), state
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    return processes().get(pid, (0, "Z"))[1] != "Z"


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    return [child for child, (parent, state) in processes().items() if parent == pid and state != "Z"]


def zombies(pid: int) -> list[int]:
    """Return the dead children that a process has not waited for."""
    return [child for child, (parent, state) in processes().items() if parent == pid and state == "Z"]


def tree(pid: int) -> list[int]:
    """Return a process and everything below it, the root first."""
    return [pid, *(below for child in children(pid) for below in tree(child))]


class CrashNode(NodeProcess):
    """A node whose processes a test kills."""

    @property
    def supervisor(self) -> int:
        """The process id of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def pid(self, role: str) -> int | None:
        """Return the process id of a role, None while it is down."""
        for child in children(self.supervisor):
            line = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if role.encode() in line:
                return child
        return None

    def kill_listeners(self) -> None:
        """kill -9 all listeners at once."""
        for pid in wait_for(lambda: self.pids("intake"), 20, "intake runs"):
            os.kill(pid, signal.SIGKILL)

    def kill_role(self, role: str) -> int:
        """kill -9 one role; return what its process id was."""
        pid = wait_for(lambda: self.pid(role), 20, f"{role} runs")
        os.kill(pid, signal.SIGKILL)
        return int(pid)

    def kill_everything(self) -> None:
        """kill -9 the supervisor, the roles and their children in one go."""
        doomed = tree(self.supervisor)
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)
        wait_for(lambda: not any(map(alive, doomed)) and not self.pids(), 20, "every process is gone")

    def await_end(self, seconds: float) -> int:
        """Return the exit status of a supervisor that ends by itself, negative for the signal that ended it."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill_supervisor(self) -> None:
        """kill -9 the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def events(self, name: str, role: str | None = None) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        return [line for line in self.log() if line["event"] == name and role in (None, line["role"])]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Read the database as a bystander."""
        with sqlite3.connect(self.folder / "node.db", timeout=20) as connection:
            rows = connection.execute(statement).fetchall()
        connection.close()
        return rows

    def jobs(self) -> Counter[tuple[str, str]]:
        """Return how many jobs there are by kind and state."""
        return Counter({(kind, state): n for kind, state, n in self.query(_JOBS)})

    def idle(self) -> bool:
        """Whether no job waits or is being worked on."""
        return not any(state in {"ready", "leased"} for _, state in self.jobs())

    def await_idle(self, seconds: float) -> None:
        """Return when every job is done or dead."""
        wait_for(self.idle, seconds, f"every job is done: {self.jobs()}")

    def orphans(self) -> set[str]:
        """Return the sealed objects that no row names."""
        return self.sealed() - {row[0].hex() for row in self.query(_NAMED)}

    def missing(self) -> set[str]:
        """Return the objects that a row names and that are not there."""
        return {row[0].hex() for row in self.query(_NAMED)} - self.sealed()

    def sealed(self) -> set[str]:
        """Return the sealed objects on disk."""
        return {object_id.hex() for object_id in extents(self.folder / "objects")}

    def leftovers(self) -> int:
        """Return how many bytes of the object store belong to no object: half-written or failed ones."""
        return half_written(self.folder / "objects")

    def left(self) -> dict[str, int]:
        """Return what a kill left behind, by kind."""
        found = {" ".join(key): count for key, count in sorted(self.jobs().items())}
        rows = self.query("SELECT max(seq) FROM audit_entries")[0][0]
        found |= {"half-written bytes": self.leftovers(), "orphans": len(self.orphans())}
        return found | {"audit rows not in the trail": rows - len(self.trail())}

    def trail(self) -> list[dict[str, Any]]:
        """Return the audit trail's entries."""
        parts = [path.read_text() for path in sorted((self.folder / "audit").glob("*.jsonl"))]
        return [json.loads(line) for line in "".join(parts).split("\n")[:-1]]  # a torn last line is no entry yet

    def assert_sound(self) -> None:
        """Whatever was killed: nothing half-written, unnamed or missing, no dead letter, a trail that verifies."""
        assert self.leftovers() == 0
        assert self.orphans() == set()
        assert self.missing() == set()
        assert {state for _, state in self.jobs()} <= {"done"}
        verified = self.run("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


_JOBS = "SELECT kind, state, count(*) FROM jobs GROUP BY kind, state"
_NAMED = """
    SELECT object_id FROM instances UNION SELECT object_id FROM results UNION SELECT report_id FROM results
    UNION SELECT object_id FROM commitments WHERE object_id IS NOT NULL
    UNION SELECT object_id FROM secondary UNION SELECT object_id FROM shadow_results
"""


@dataclass
class Ledger:
    """A modality with a memory: what was answered, what was not and was sent again."""

    node: CrashNode
    images: list[Dataset]
    answers: dict[str, list[int]] = field(default_factory=dict)
    sent: int = 0
    unanswered: int = 0  # associations that failed or were lost
    pause: float = 0.0  # seconds between two images

    @property
    def promised(self) -> set[str]:
        """The SOP instances that were answered 0000."""
        return {uid for uid, statuses in self.answers.items() if SUCCESS in statuses}

    def push(self, seconds: float) -> None:
        """Send every image until it is answered 0000, connecting again whenever the node is gone."""
        deadline = time.monotonic() + seconds
        waiting = list(self.images)
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} images unanswered"
            try:
                with associate(self.node, self.images) as association:
                    while waiting:
                        self._send(association, waiting[0])
                        waiting.pop(0)
                        time.sleep(self.pause)
            except (DestinationUnavailable, DestinationRefused):
                self.unanswered += 1
                time.sleep(0.1)

    def send(self, image: Dataset) -> int:
        """Send one image on an association of its own and return its status."""
        with associate(self.node, [image]) as association:
            return self._send(association, image)

    def _send(self, association: DestinationAssociation, image: Dataset) -> int:
        self.sent += 1
        status = association.store(file_bytes(image))
        self.answers.setdefault(str(image.SOPInstanceUID), []).append(status)
        return status


def associate(node: CrashNode, images: list[Dataset]) -> DestinationAssociation:
    """Open an association with a node as MODALITY1."""
    pki = node.folder / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(pki / "modality.crt", pki / "modality.key")
    return DestinationAssociation(
        DestinationSettings(name="node", ae_title="RADNODE", host="127.0.0.1", port=node.port),
        context=context,
        calling_ae_title="MODALITY1",
        offers={(str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID)) for image in images},
        timeout_seconds=20,
    )


def report_counts(pacs: Orthanc) -> int:
    """Return how many reports a PACS holds, their pictures not counted."""
    return pacs.report_count()


def sources(report: Dataset) -> list[str]:
    """Return the SOP instances that a report names as its evidence."""
    return [
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def assert_one_report_each(pacs: Orthanc, promised: set[str]) -> list[Dataset]:
    """Every promised image has exactly one report at the PACS, and there is no other; return the reports."""
    reports = pacs.reports()
    assert max(Counter(str(report.SOPInstanceUID) for report in reports).values()) == 1
    named = Counter(uid for report in reports for uid in sources(report))
    assert {uid: count for uid, count in named.items() if count != 1} == {}
    assert set(named) == promised
    assert len(reports) == len(promised) == report_counts(pacs)
    return reports
