"""A serving node that is given bad input, and what must hold after each piece of it.

After every case the node answers the C-ECHO of a good peer within 100 ms, its listeners hold no more threads,
descriptors or memory than before, one log line explains each refusal, and each refused peer is in the audit trail.
"""

from __future__ import annotations

import json
import re
import ssl
import struct
import subprocess
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import func, select

from radnode.audit.log import audit_entries
from radnode.configuration import load_settings
from radnode.jobs import schema
from radnode.jobs.database import reading
from radnode.jobs.index import find_instance
from radnode.network import wire
from radnode.network.command_set import NO_DATA_SET, Tag
from radnode.network.contexts import VERIFICATION
from radnode.network.storage_scu import echo
from radnode.network.tls import client_context
from radnode.node import Node
from radnode.observe import KEYS
from radnode.pki import make_test_pki
from radnode.settings import DestinationSettings, Settings, TLSSettings
from support import rooms
from support.certificates import DAY, resigned, revocation_list
from support.network import CT, EXPLICIT, command, read_pdu, request_pdu, store_command
from support.node import STORESCU, NodeProcess, wait_for
from support.strangers import IMPLICIT_VR_LITTLE_ENDIAN, connect, tls

# Every row is run in every lane.
HARMLESS = "context_not_accepted"  # said in the log; no event of the audit trail
LANES = {lane: {"RADNODE_NETWORK__FAST_LANE": value} for lane, value in (("stock", "false"), ("fast", "true"))}

HANDSHAKE_SECONDS, REQUEST_SECONDS, PDU_SECONDS = 1.5, 1.5, 1.5  # the last is idle_seconds, which bounds a PDU too
MAX_ASSOCIATIONS, MAX_ASSOCIATIONS_PER_PEER = 6, 4
DEADLINES = {
    "RADNODE_NODE__HANDSHAKE_SECONDS": str(HANDSHAKE_SECONDS),
    "RADNODE_NODE__REQUEST_SECONDS": str(REQUEST_SECONDS),
    "RADNODE_NODE__IDLE_SECONDS": str(PDU_SECONDS),
    "RADNODE_NODE__DRAIN_SECONDS": "1",
    "RADNODE_NETWORK__LISTENERS": "1",
    "RADNODE_DETECTION__REFUSALS": "0",  # refusals are all that happens here
    "RADNODE_NODE__MAX_ASSOCIATIONS": str(MAX_ASSOCIATIONS),
    "RADNODE_NODE__MAX_ASSOCIATIONS_PER_PEER": str(MAX_ASSOCIATIONS_PER_PEER),
}

ECHO_MILLISECONDS, ECHO_TRIES = 100.0, 5
MEMORY_SLACK = 16 * 2**20  # bytes; what an allocator keeps of threads that have ended
DATABASE_DESCRIPTORS = 18  # a pool of connections to the database fills as they are needed, and stays
SETTLE_SECONDS = 8.0  # a refused peer is listened to for a second more, and 500 handshakes take their time
_IDENTIFYING = re.compile(rb"DOE|JANE|Secret|SECRET|\d+(\.\d+){4,}")  # of the objects that these tests send; a UID
ECHO = {
    Tag.AFFECTED_SOP_CLASS_UID: VERIFICATION,
    Tag.COMMAND_FIELD: 0x0030,
    Tag.MESSAGE_ID: 1,
    Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
}


@dataclass(frozen=True, slots=True)
class Census:
    """What the listeners hold in all: threads, sockets, open descriptors, resident memory and its peaks in bytes."""

    pids: tuple[int, ...]
    threads: int
    sockets: int
    descriptors: int
    memory: int
    peak: int

    def is_within(self, allowed: Census) -> bool:
        """Whether no more is held than is allowed."""
        return (
            self.threads <= allowed.threads
            and self.sockets <= allowed.sockets
            and self.descriptors <= allowed.descriptors
            and self.memory <= allowed.memory
        )


class Target:
    """A node that serves intake alone, as a peer sees it and as its operator does."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self._log: list[dict[str, Any]] = []
        self._log_offset = 0
        self._warm_up()
        self._quiet = self.census()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.node.port

    @property
    def pki(self) -> Path:
        """The folder of the test certificates."""
        return self.node.folder / "pki"

    def client(self, name: str | None = "modality") -> ssl.SSLContext:
        """The TLS context of a peer that holds the certificate `name`, or none."""
        return tls(self.pki / "ca.crt", None if name is None else self.pki / f"{name}.crt")

    def connect(self, name: str | None = "modality") -> ssl.SSLSocket:
        """A connection after its handshake."""
        return self.client(name).wrap_socket(connect(self.port), server_hostname="localhost")

    def store(self, dataset: Dataset, *, syntax: str = EXPLICIT, **changes: int | str) -> int:
        """The status that one object gets, on an association of its own, with these changes to the command."""
        return self.store_bytes(rooms.encoded(dataset, syntax), str(dataset.SOPInstanceUID), syntax=syntax, **changes)

    def store_bytes(
        self, data_set: bytes, SOPInstanceUID: str, *, sop_class: str = CT, syntax: str = EXPLICIT, **changes: int | str
    ) -> int:
        """The status that these bytes get; a C-ECHO on the same association must go on after it."""
        with self.connect() as connection:
            connection.sendall(request_pdu(offers=[(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN), (sop_class, syntax)]))
            assert read_pdu(connection)[:1] == b"\x02"
            names = {"AFFECTED_SOP_CLASS_UID": sop_class, "AFFECTED_SOP_INSTANCE_UID": SOPInstanceUID}
            values = store_command(**{**names, **changes})
            status = command(connection, 3, values, data_set).ushort(Tag.STATUS)
            assert command(connection, 1, ECHO).ushort(Tag.STATUS) == 0
            connection.sendall(wire.RELEASE_RQ_PDU)
            assert read_pdu(connection)[:1] == b"\x06"
            return status

    def storescu(
        self, files: Sequence[Path], certificate: str | None = "modality", *options: str
    ) -> subprocess.CompletedProcess[str]:
        """What Debian's storescu says of sending files as MODALITY1 under this certificate, or none."""
        holder = self.pki / f"{certificate}.crt"
        own = ["+tla"] if certificate is None else ["+tls", holder.with_suffix(".key"), holder]
        titles = ["-aet", "MODALITY1", "-aec", "RADNODE", "127.0.0.1", self.port]
        command = [STORESCU, "-v", "-R", *options, *own, "+cf", self.pki / "ca.crt", *titles, *files]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)

    def kept(self, SOPInstanceUID: str) -> bytes | None:
        """The Part 10 object that the node keeps under this UID, opened with its own keys; None when there is none."""
        with reading(self._parts.engine) as tx:
            row = find_instance(tx, self._parts.pseudonyms.instance(SOPInstanceUID))
        return None if row is None else self._parts.vault.get(row.object_id)

    def jobs(self, SOPInstanceUID: str) -> int:
        """How many jobs the instance of this UID has been given."""
        subject = self._parts.pseudonyms.instance(SOPInstanceUID)
        with reading(self._parts.engine) as tx:
            return len(tx.execute(select(schema.jobs).where(schema.jobs.c.subject == subject)).all())

    @cached_property
    def _parts(self) -> Node:
        return Node(load_settings(self.node.config))

    def close(self) -> None:
        """Close what `kept` opened."""
        if "_parts" in self.__dict__:
            self._parts.engine.dispose()

    # --- what must hold

    @contextmanager
    def attacked(self, *explanations: str, peak: int | None = None) -> Iterator[list[dict[str, Any]]]:
        """Give the node bad input in the block; after it, hold the node to its promises.

        `explanations` are the rules of the peers that are refused and the statuses of the objects that are, one log
        line for each; `peak` is how many bytes the intake process may take meanwhile. Gives the list into which the
        log lines will have been put.
        """
        for pid in self._quiet.pids:
            forget_peak(pid)
        self.await_trail()
        before, lines, entries = self.census(), len(self.log()), len(self.node.trail("peer_refused"))
        told: list[dict[str, Any]] = []
        yield told
        self._await_quiet(before)
        self.await_trail()
        if peak is not None:
            assert self.census().peak - before.memory < peak
        told += self.log()[lines:]
        assert Counter(explanation(line) for line in told if is_trouble(line)) == Counter(explanations)
        assert [line for line in told if "dropped" in line or not KEYS.issuperset(line)] == []
        refused = sorted(line["rule"] for line in told if line["event"] == "peer_refused" and line["rule"] != HARMLESS)

        def audited() -> bool:
            return sorted(entry["detail"]["rule"] for entry in self.node.trail("peer_refused")[entries:]) == refused

        wait_for(audited, SETTLE_SECONDS, "every refusal is in the trail")
        self.assert_serves()

    def await_trail(self) -> None:
        """Wait until what was committed so far stands in the trail."""
        with reading(self._parts.engine) as tx:
            rows = tx.execute(select(func.max(audit_entries.c.seq))).scalar() or 0
        wait_for(lambda: len(self.node.trail()) >= rows, SETTLE_SECONDS, "the trail is up to date")

    def assert_serves(self) -> None:
        """A C-ECHO of a good peer is answered in time; on a later try where the machine was busy with others."""
        taken = [self.echo()]
        while min(taken) >= ECHO_MILLISECONDS and len(taken) < ECHO_TRIES:
            time.sleep(ECHO_MILLISECONDS / 1000)
            taken.append(self.echo())
        assert min(taken) < ECHO_MILLISECONDS, taken

    def echo(self) -> float:
        """The round trip of one C-ECHO of the administrator, in milliseconds, on an association of its own."""
        own = TLSSettings(certificate=Path("admin.crt"), key=Path("admin.key"), ca=Path("ca.crt"))
        context = client_context(Settings(data_dir=self.pki, tls=own))
        target = DestinationSettings(name="node", ae_title="RADNODE", host="127.0.0.1", port=self.port)
        return echo(target, context=context, calling_ae_title="ADMIN", timeout_seconds=10)

    def log(self) -> list[dict[str, Any]]:
        """The operational log; every line must be one JSON object and hold neither a patient's name nor a UID."""
        with self.node.log_path.open("rb") as file:
            file.seek(self._log_offset)
            whole = file.read().rpartition(b"\n")[0]
        for line in whole.splitlines():
            assert _IDENTIFYING.search(line) is None, line
            self._log.append(json.loads(line))
        self._log_offset += len(whole) + bool(whole)
        return self._log

    def census(self) -> Census:
        """What the listeners hold now."""
        pids = tuple(sorted(self.node.pids("intake")))
        threads = sockets = descriptors = memory = peak = 0
        for pid in pids:
            folder = Path(f"/proc/{pid}")
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            open_files = [_target(handle) for handle in (folder / "fd").iterdir()]
            threads += int(status["Threads"])
            sockets += sum(name.startswith("socket:") for name in open_files)
            descriptors += len(open_files)
            memory += int(status["VmRSS"].split()[0]) * 1024
            peak += int(status["VmHWM"].split()[0]) * 1024
        return Census(pids, threads, sockets, descriptors, memory, peak)

    def _await_quiet(self, before: Census) -> None:
        """Wait until the node holds what it held before anybody attacked it, and memory as before the last attack."""
        descriptors = self._quiet.descriptors + DATABASE_DESCRIPTORS * len(self._quiet.pids)
        allowed = replace(self._quiet, descriptors=descriptors, memory=before.memory + MEMORY_SLACK)
        deadline = time.monotonic() + SETTLE_SECONDS
        while not (now := self.census()).is_within(allowed):
            assert time.monotonic() < deadline, f"{now} is not within {allowed}"
            time.sleep(0.05)
        assert now.pids == self._quiet.pids, "a listener was restarted"

    def _warm_up(self) -> None:
        """Let the node open what it keeps open: connections to its database, one for each association at work."""
        objects = [rooms.small(SOPInstanceUID=generate_uid()) for _ in range(MAX_ASSOCIATIONS_PER_PEER)]
        for _ in range(4):
            with ThreadPoolExecutor(MAX_ASSOCIATIONS_PER_PEER) as pool:
                assert set(pool.map(self.store, objects)) == {0x0000}
        self.echo()
        time.sleep(0.5)  # until their threads have ended


def raw_data_set(uid: str, /, **values: bytes) -> bytes:
    """A small CT data set under this UID, explicit VR little endian, with these bytes as values of some elements."""
    study = b"1.2.3.20.%d" % zlib.crc32(uid.encode())
    named = {
        "SOPClassUID": CT.encode(),
        "SOPInstanceUID": uid.encode(),
        "StudyInstanceUID": study,
        "SeriesInstanceUID": study + b".1",
        "PatientName": b"Secret^Name",
        **values,
    }
    encoded = b""
    for tag, keyword in sorted((tag_for_keyword(keyword), keyword) for keyword in named):
        vr, value = dictionary_VR(tag), named[keyword]
        value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
        encoded += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value
    return encoded


def is_trouble(line: dict[str, Any]) -> bool:
    """Whether a line tells of something that intake refused or that went wrong there."""
    return line["level"] != "info" and line["role"] == "intake"


def explanation(line: dict[str, Any]) -> str:
    """The rule, or else the status, that a line above level "info" gives, with a sentence on why or what to do."""
    assert re.fullmatch(r"[A-Z].*\.", line["advice"] if "rule" in line else line["message"])
    return str(line["rule"] if "rule" in line else line["status"])


def _target(handle: Path) -> str:
    """What an open descriptor stands for; nothing where it was closed meanwhile."""
    try:
        return str(handle.readlink())
    except OSError:
        return ""


def forget_peak(pid: int) -> None:
    """Let the peak of a process's resident memory begin anew (proc(5), /proc/pid/clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def target_in(folder: Path, lane: str, *more: str, **overrides: str) -> Iterator[Target]:
    """A node that serves intake and `more` in one lane, with short deadlines, a revocation list and these overrides."""
    revoked = {"RADNODE_TLS__CRL": "pki/ca.crl"}
    with NodeProcess(folder / "node", overrides={**DEADLINES, **revoked, **LANES[lane], **overrides}) as node:
        pki = node.folder / "pki"
        resigned(pki, pki / "expired.crt", -20 * DAY, -DAY)
        revocation_list(pki, pki / "ca.crl", resigned(pki, pki / "revoked.crt", -DAY, 9 * DAY))
        make_test_pki(folder / "foreign")
        roles = ("intake", *more)
        node.start(role=",".join(roles), wait=(*roles, "sequencer"))
        target = Target(node)
        yield target
        target.close()
