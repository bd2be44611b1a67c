"""The Storage SCU against a scripted SCP: every answer is told apart as stored, try again, or never."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from contextlib import contextmanager

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification
from support.network import CT, EXPLICIT, sample, small_object

from radnode import pki
from radnode.errors import DestinationRefused, DestinationUnavailable, MalformedDataSet
from radnode.network.storage_scu import echo, open_destination
from radnode.network.tls import client_context
from radnode.part10 import read_file_meta
from radnode.settings import DestinationSettings, Settings, TLSSettings


@contextmanager
def scripted_scp(handlers=(), contexts=((CTImageStorage, None), (Verification, None)), ssl_context=None, **values):
    """A pynetdicom SCP on a free port; gives its port."""
    ae = AE(ae_title="PACS")
    for name, value in values.items():
        setattr(ae, name, value)
    for abstract_syntax, transfer_syntax in contexts:
        ae.add_supported_context(abstract_syntax, transfer_syntax or [EXPLICIT, "1.2.840.10008.1.2"])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers), ssl_context=ssl_context)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@contextmanager
def raw_scp(*answers: bytes):
    """A server that answers each thing it reads with the next of `answers`, then holds the line; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                for answer in answers:
                    connection.recv(65536)
                    connection.sendall(answer)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def destination(port: int, **changes) -> DestinationSettings:
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": False, **changes}
    return DestinationSettings(**values)


def store(port: int, *objects: bytes, context=None, timeout_seconds: float = 5, **changes) -> list[int]:
    target = destination(port, **changes)
    with open_destination(
        target,
        context=context,
        calling_ae_title="RADNODE",
        objects=objects,
        timeout_seconds=timeout_seconds,
    ) as association:
        return [association.store(part10) for part10 in objects]


def echo_milliseconds(port: int, *, context=None, timeout_seconds: float = 5, **changes) -> float:
    target = destination(port, **changes)
    return echo(target, context=context, calling_ae_title="RADNODE", timeout_seconds=timeout_seconds)


def answering(status: int):
    return [(evt.EVT_C_STORE, lambda event: status)]


@pytest.fixture(scope="module")
def answer():
    """A function that sets the status of one SCP and gives its port."""
    status = [0]
    with scripted_scp([(evt.EVT_C_STORE, lambda event: status[0])]) as port:

        def set_status(value: int) -> int:
            status[0] = value
            return port

        yield set_status


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0116])
def test_success_and_warnings_count_as_stored(answer, status):
    assert store(answer(status), small_object()) == [status]


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213, 0x0210])
def test_transient_failures_are_tried_again(answer, status):
    with pytest.raises(DestinationUnavailable, match=f"{status:04X}"):
        store(answer(status), small_object())


@pytest.mark.parametrize("status", [0xA800, 0xA900, 0xC000, 0xCFFF, 0x0111, 0x0117, 0x0122, 0x0124, 0x0211])
def test_permanent_failures_are_never_tried_again(answer, status):
    with pytest.raises(DestinationRefused, match=f"{status:04X}"):
        store(answer(status), small_object())


def test_data_set_leaves_byte_for_byte_in_pdus_the_peer_takes():
    data_sets, lengths = [], []

    def keep(event):
        data_sets.append(event.request.DataSet.getvalue())
        return 0x0000

    def measure(event):
        lengths.append(event.pdu.pdu_length)

    objects = [sample("CT_small.dcm"), small_object(padding=300_001)]
    handlers = [(evt.EVT_C_STORE, keep), (evt.EVT_PDU_RECV, measure)]
    with scripted_scp(handlers, maximum_pdu_size=4096) as port:
        assert store(port, *objects) == [0, 0]
    assert data_sets == [part10[read_file_meta(part10).offset :] for part10 in objects]
    assert max(lengths) <= 4096


def test_one_refused_object_does_not_end_the_association():
    answers = iter([0xC000, 0x0000])
    part10 = small_object()
    with (
        scripted_scp([(evt.EVT_C_STORE, lambda event: next(answers))]) as port,
        open_destination(
            destination(port), context=None, calling_ae_title="RADNODE", objects=[part10], timeout_seconds=5
        ) as association,
    ):
        with pytest.raises(DestinationRefused):
            association.store(part10)
        assert association.store(part10) == 0


def test_echo_gives_milliseconds():
    with scripted_scp() as port:
        assert 0 < echo_milliseconds(port) < 1000


def test_context_that_is_not_accepted_is_permanent():
    with (
        scripted_scp(contexts=[(Verification, None)]) as port,
        pytest.raises(DestinationRefused, match="does not accept SOP class"),
    ):
        store(port, small_object())
    with (
        scripted_scp(contexts=[(CTImageStorage, None)]) as port,
        pytest.raises(DestinationRefused, match="Verification"),
    ):
        echo_milliseconds(port)


def test_rejected_permanent_and_rejected_transient_differ():
    with scripted_scp(require_called_aet=True) as port, pytest.raises(DestinationRefused, match="1/1/7"):
        echo_milliseconds(port, ae_title="OTHER")
    with (
        raw_scp(b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02") as port,
        pytest.raises(DestinationUnavailable, match="2/3/2"),
    ):
        echo_milliseconds(port)


def test_nobody_listening_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DestinationUnavailable, match="cannot be reached"):
        echo_milliseconds(port)


def test_abort_is_unavailable():
    def abort(event):
        event.assoc.abort()
        return 0x0000

    with scripted_scp([(evt.EVT_C_STORE, abort)]) as port, pytest.raises(DestinationUnavailable, match="aborted"):
        store(port, small_object())


def test_silence_is_unavailable_after_the_timeout():
    with raw_scp() as port, pytest.raises(DestinationUnavailable, match="in time"):
        echo_milliseconds(port, timeout_seconds=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400\r\n\r\n",
        b"\x02\x00\xff\xff\xff\xff",
        b"\x02\x00\x00\x00\x00\x04junk",
        b"\x04\x00\x00\x00\x00\x00",
    ],
)
def test_answer_that_is_no_dicom_is_unavailable(answer):
    with raw_scp(answer) as port, pytest.raises(DestinationUnavailable):
        echo_milliseconds(port, timeout_seconds=1)


def flooding(pdu: bytes, pause: float = 0.0):
    """An SCP that answers a C-STORE with this PDU again and again, until it is hung up on or for 20 s."""

    def flood(event):
        deadline = time.monotonic() + 20
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                event.assoc.dul.socket.socket.sendall(pdu)
                time.sleep(pause)
        return 0x0000

    return scripted_scp([(evt.EVT_C_STORE, flood)])


@pytest.mark.parametrize(
    ("value", "pause"),
    [(b"\x01", 0.0), (b"\x01", 0.05), (b"\x01\x00", 0.05), (b"", 0.0)],
    ids=["empty fragments", "empty fragments one by one", "a byte at a time", "no fragment"],
)
def test_response_that_never_ends_is_unavailable_at_the_deadline(value, pause):
    item = struct.pack(">LB", len(value) + 1, 1) + value if value else b""
    began = time.monotonic()
    with (
        flooding(struct.pack(">BxL", 4, len(item)) + item, pause) as port,
        pytest.raises(DestinationUnavailable, match=r"in time|broke the protocol"),
    ):
        store(port, small_object(), timeout_seconds=1)
    assert time.monotonic() - began < 4


def test_connection_closed_at_once_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept_and_close() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=accept_and_close)
        thread.start()
        with pytest.raises(DestinationUnavailable):
            echo_milliseconds(server.getsockname()[1])
        thread.join()


def test_object_that_is_no_part_10_never_connects():
    with pytest.raises(MalformedDataSet, match="DICM"):
        store(1, b"no preamble")


# --- TLS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    return folder


def own_context(folder) -> ssl.SSLContext:
    return client_context(
        Settings(data_dir=folder, tls=TLSSettings(certificate="server.crt", key="server.key", ca="ca.crt"))
    )


def server_side(folder, name: str = "pacs") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return context


def test_stores_over_mutual_tls(folder):
    with scripted_scp(answering(0), ssl_context=server_side(folder)) as port:
        assert store(port, small_object(CT), context=own_context(folder)) == [0]


def test_certificate_of_another_authority_is_unavailable(folder, tmp_path):
    other = tmp_path / "other"
    pki.make_test_pki(other)
    with (
        scripted_scp(ssl_context=server_side(other)) as port,
        pytest.raises(DestinationUnavailable, match="does not verify"),
    ):
        echo_milliseconds(port, context=own_context(folder))


def test_certificate_of_another_host_is_unavailable(folder):
    with (
        scripted_scp(ssl_context=server_side(folder, "modality")) as port,
        pytest.raises(DestinationUnavailable, match="not that of its host"),
    ):
        echo_milliseconds(port, context=own_context(folder))


def test_plain_server_on_a_tls_destination_is_unavailable(folder):
    with raw_scp(struct.pack(">BxL", 7, 4) + bytes(4)) as port, pytest.raises(DestinationUnavailable, match="TLS"):
        echo_milliseconds(port, context=own_context(folder))
