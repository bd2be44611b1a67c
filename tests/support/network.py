"""A listener with a recording `receive`, and a peer that can misbehave, for the network tests."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from radnode import pki
from radnode.errors import ConfigError, ObjectTooLarge
from radnode.model import Refusal, StoreRequest
from radnode.network import wire
from radnode.network.command_set import CommandSet, Tag, encode
from radnode.network.contexts import VERIFICATION, proposed
from radnode.network.hooks import AssociationEvent
from radnode.network.server import Listener
from radnode.network.storage_scu import echo, open_destination
from radnode.network.tls import client_context
from radnode.settings import DestinationSettings, NetworkSettings, NodeSettings, PeerSettings, Settings, TLSSettings

CT = str(CTImageStorage)
EXPLICIT = str(ExplicitVRLittleEndian)
PATIENT = "DOE^JANE"  # stands for patient data in exceptions
FAST_LANE = True  # whether the listeners of `running_node` read C-STORE in the fast lane


@dataclass
class Node:
    """A running listener and everything it reported."""

    listener: Listener
    folder: Path
    settings: Settings
    received: list[tuple[StoreRequest, bytes]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    events: list[AssociationEvent] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    renewals: list[ConfigError | None] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.bound_port

    def client(self, name: str | None = "modality") -> ssl.SSLContext:
        """The TLS context of a peer that holds the certificate `name` of the test PKI, or none."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.check_hostname = False
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def connect(self, name: str | None = "modality") -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", self.port), 10)
        return self.client(name).wrap_socket(raw, server_hostname="localhost")

    def destination(self, **changes) -> DestinationSettings:
        values = {"name": "node", "ae_title": "RADNODE", "host": "127.0.0.1", "port": self.port, **changes}
        return DestinationSettings(**values)

    def await_refusals(self, count: int = 1, seconds: float = 8) -> list[str]:
        """Wait for that many refusals, then a little for one too many; return the rules."""
        until(lambda: len(self.refusals) >= count, seconds)
        time.sleep(0.1)
        return [refusal.rule for refusal in self.refusals]


def until(condition, seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def peers(folder: Path) -> tuple[PeerSettings, ...]:
    modality, admin = pki.fingerprint(folder / "modality.crt"), pki.fingerprint(folder / "admin.crt")
    return (
        PeerSettings(ae_title="MODALITY1", certificate_sha256=modality),
        PeerSettings(ae_title="SECOND", certificate_sha256=modality),
        PeerSettings(ae_title="ADMIN", certificate_sha256=admin, may=("echo",)),
        PeerSettings(ae_title="STOREONLY", certificate_sha256=modality, may=("store",)),
        PeerSettings(ae_title="BYNAME", san="modality"),
        PeerSettings(ae_title="ELSEWHERE", certificate_sha256=modality, addresses=("192.0.2.7",)),
        PeerSettings(ae_title="HERE", addresses=("127.0.0.0/8",)),
        PeerSettings(ae_title="UNBOUND"),
    )


class Gathered:
    """A reception in memory."""

    def __init__(self, request: StoreRequest, keep, limit: int) -> None:
        self._request, self._keep, self._limit = request, keep, limit
        self._data_set, self._room = bytearray(), bytearray(1000)

    def room(self) -> memoryview:
        return memoryview(self._room)

    def advance(self, count: int) -> None:
        self._data_set += self._room[:count]

    def finish(self) -> None:
        if len(self._data_set) > self._limit:
            raise ObjectTooLarge("The object is larger than node.max_object_bytes.")
        self._keep(self._request, bytes(self._data_set))

    def abandon(self) -> None:
        self._keep = None


@contextmanager
def running_node(
    folder: Path,
    *,
    receive=None,
    tls: dict | None = None,
    network: dict | None = None,
    analysable=None,
    known=None,
    commitment=None,
    destinations=(),
    shared: dict | None = None,
    **node_values,
):
    """Run a listener on a free port for the duration of the block; `shared` is what it shares with others."""
    values = {"port": 0, "handshake_seconds": 2, "request_seconds": 2, "idle_seconds": 5, **node_values}
    names = {"certificate": "server.crt", "key": "server.key", "ca": "ca.crt", **(tls or {})}
    settings = Settings(
        data_dir=folder,
        node=NodeSettings(**values),
        network=NetworkSettings(**{"fast_lane": FAST_LANE, **(network or {})}),
        tls=TLSSettings(**names),
        peers=peers(folder) if known is None else known,
        destinations=destinations,
    )
    received, refusals, events, failures, renewals = [], [], [], [], []

    def keep(request: StoreRequest, data_set: bytes) -> None:
        if receive is not None:
            receive(request, data_set)
        received.append((request, data_set))

    def receive_into_memory(request: StoreRequest) -> Gathered:
        return Gathered(request, keep, settings.node.max_object_bytes)

    hooks = (refusals.append, events.append, failures.append)
    listener = Listener(
        settings,
        receive_into_memory,
        *hooks,
        analysable=analysable,
        renewed=renewals.append,
        commitment=commitment,
        **(shared or {}),
    )
    listener.start()
    try:
        yield Node(listener, folder, settings, received, refusals, events, failures, renewals)
    finally:
        listener.drain(0)


def request_pdu(calling: str = "MODALITY1", called: str = "RADNODE", offers=None) -> bytearray:
    offers = offers or [(VERIFICATION, "1.2.840.10008.1.2"), (CT, EXPLICIT)]
    return bytearray(wire.associate_rq(calling, called, proposed(offers)))


def item(item_type: int, content: bytes) -> bytes:
    """An item or sub-item of an A-ASSOCIATE-RQ."""
    return struct.pack(">BxH", item_type, len(content)) + content


def with_titles(pdu: bytearray, called: bytes | None = None, calling: bytes | None = None) -> bytearray:
    """Put raw titles into an A-ASSOCIATE-RQ, legal or not."""
    for offset, title in ((10, called), (26, calling)):
        if title is not None:
            pdu[offset : offset + 16] = title.ljust(16)[:16]
    return pdu


def read_pdu(connection: socket.socket) -> bytes:
    """The next whole PDU; b"" when the peer closed."""
    connection.settimeout(10)
    header = _read(connection, 6)
    return header + _read(connection, struct.unpack(">2xL", header)[0]) if header else b""


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            more = connection.recv(count - len(data))
        except (ConnectionResetError, ssl.SSLError):
            more = b""
        if not more:
            return b""
        data += more
    return data


def rejection(pdu: bytes) -> tuple[int, int, int]:
    assert pdu[:1] == b"\x03", pdu[:10].hex()
    return pdu[7], pdu[8], pdu[9]


def abort(pdu: bytes) -> tuple[int, int]:
    assert pdu[:1] == b"\x07", pdu[:10].hex()
    return pdu[8], pdu[9]


def sample(name: str) -> bytes:
    return Path(get_testdata_file(name)).read_bytes()


def small_object(sop_class: str = CT, syntax: str = EXPLICIT, padding: int = 0) -> bytes:
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = sop_class, generate_uid()
    data_set.PatientName = PATIENT
    data_set.add_new(0x7FE00010, "OB", b"\0" * padding)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    data_set.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def node_client_context(node: Node) -> ssl.SSLContext:
    """The SCU's own context, as MODALITY1."""
    tls = TLSSettings(certificate="modality.crt", key="modality.key", ca="ca.crt")
    return client_context(node.settings.model_copy(update={"tls": tls}))


def send(node, *objects: bytes, **changes) -> None:
    arguments = {
        "context": node_client_context(node),
        "calling_ae_title": "MODALITY1",
        "objects": objects,
        "timeout_seconds": 10,
        **changes,
    }
    with open_destination(node.destination(), **arguments) as association:
        for part10 in objects:
            association.store(part10)


def echo_milliseconds(node, calling: str = "MODALITY1") -> float:
    context = node_client_context(node)
    return echo(node.destination(), context=context, calling_ae_title=calling, timeout_seconds=10)


def command(connection, context_id: int, values: dict, data_set: bytes | None = None) -> CommandSet:
    """Send one message as it is told and return the response."""
    for pdu in wire.p_data(context_id, encode(values), command=True, max_length=16384):
        connection.sendall(pdu)
    if data_set is not None:
        for pdu in wire.p_data(context_id, data_set, command=False, max_length=16384):
            connection.sendall(pdu)
    pdu = read_pdu(connection)
    assert pdu[:1] == b"\x04", pdu[:10].hex()
    return CommandSet.parse(next(wire.read_p_data(pdu[6:]))[1])


def store_command(**changes) -> dict:
    values = {
        Tag.AFFECTED_SOP_CLASS_UID: CT,
        Tag.COMMAND_FIELD: 0x0001,
        Tag.MESSAGE_ID: 7,
        Tag.PRIORITY: 0,
        Tag.COMMAND_DATA_SET_TYPE: 1,
        Tag.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
    }
    return values | {Tag[name]: value for name, value in changes.items()}


def associated(node, **changes) -> ssl.SSLSocket:
    connection = node.connect()
    connection.sendall(request_pdu(**changes))
    assert read_pdu(connection)[:1] == b"\x02"
    return connection


# --- what is kept


def value(context_id: int, control: int, content: bytes) -> bytes:
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def pdata(*values: bytes) -> bytes:
    return b"\x04\x00" + struct.pack(">L", sum(map(len, values))) + b"".join(values)
