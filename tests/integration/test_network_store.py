"""Objects that peers send: byte for byte, and what odd commands and errors are answered."""

from __future__ import annotations

import logging
import socket

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE
from support.network import (
    CT,
    EXPLICIT,
    PATIENT,
    associated,
    command,
    echo_milliseconds,
    pdata,
    read_pdu,
    rejection,
    request_pdu,
    running_node,
    sample,
    send,
    small_object,
    store_command,
    until,
    value,
)

from radnode import pki
from radnode.errors import DestinationUnavailable, StoreUnavailable
from radnode.network.association import AcceptedAssociation
from radnode.network.command_set import Tag, encode
from radnode.network.contexts import VERIFICATION
from radnode.network.server import Listener
from radnode.part10 import read_file_meta


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
    ],
)
def test_data_set_arrives_byte_for_byte(node, name):
    part10 = sample(name)
    meta = read_file_meta(part10)
    send(node, part10)
    [(request, data_set)] = node.received
    assert data_set == part10[meta.offset :]
    assert request.transfer_syntax_uid == meta.transfer_syntax_uid
    assert request.sop_class_uid == request.context_sop_class_uid == meta.sop_class_uid
    assert request.sop_instance_uid == meta.sop_instance_uid
    assert request.peer.ae_title == "MODALITY1"
    assert request.peer.certificate == pki.fingerprint(node.folder / "modality.crt")
    assert request.peer.address == "127.0.0.1"
    assert node.refusals == node.failures == []


def test_many_objects_on_one_association_and_its_two_events(node):
    objects = [small_object(padding=n * 100_001) for n in range(8)]
    send(node, *objects)
    assert [data for _, data in node.received] == [o[read_file_meta(o).offset :] for o in objects]
    until(lambda: len(node.events) == 2)
    began, ended = node.events
    assert (began.event, ended.event, ended.end, ended.stored, ended.failed) == ("began", "ended", "released", 8, 0)
    assert ended.data_set_bytes == sum(len(data) for _, data in node.received)
    assert node.listener.running == 0


def test_pynetdicom_scu_is_served(node):
    ae = AE(ae_title="MODALITY1")
    ae.add_requested_context(VERIFICATION)
    ae.add_requested_context(CT, EXPLICIT)
    association = ae.associate(
        "127.0.0.1", node.port, ae_title="RADNODE", tls_args=(node.client(), "localhost"), max_pdu=0
    )
    assert association.is_established
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(dcmread(get_testdata_file("CT_small.dcm"))).Status == 0
    association.release()
    assert len(node.received) == 1


def test_peer_may_be_bound_by_alternative_name(node):
    assert echo_milliseconds(node, "BYNAME") < 1000


# --- TLS refusals: closed, and exactly one Refusal


@pytest.mark.parametrize(
    ("context_id", "changes", "status"),
    [
        (3, {}, 0x0000),
        (3, {"AFFECTED_SOP_CLASS_UID": "1.2.840.10008.5.1.4.1.1.4"}, 0x0122),
        (1, {"AFFECTED_SOP_CLASS_UID": VERIFICATION}, 0x0122),
        (3, {"AFFECTED_SOP_INSTANCE_UID": "../../etc/passwd"}, 0x0117),
        (3, {"AFFECTED_SOP_INSTANCE_UID": "1.2\x00.3"}, 0x0117),
        (3, {"AFFECTED_SOP_INSTANCE_UID": "1." * 33}, 0x0117),
        (3, {"AFFECTED_SOP_INSTANCE_UID": ""}, 0x0117),
        (3, {"COMMAND_FIELD": 0x0020}, 0x0122),
        (3, {"COMMAND_FIELD": 0x0199}, 0x0211),
    ],
)
def test_status_of_odd_commands_and_the_association_goes_on(node, context_id, changes, status):
    with associated(node) as connection:
        response = command(connection, context_id, store_command(**changes), b"data set")
        assert response.ushort(Tag.STATUS) == status
        assert response.ushort(Tag.MESSAGE_ID_BEING_RESPONDED_TO) == 7
        assert command(connection, 3, store_command(), b"data set").ushort(Tag.STATUS) == 0
    assert len(node.received) == 1 + (status == 0)
    assert node.failures == []


# --- what `receive` raises


def test_error_of_receive_becomes_its_status(folder):
    def full(request, data_set):
        raise StoreUnavailable("The disk is full; make room.")

    with running_node(folder, receive=full) as node:
        with pytest.raises(DestinationUnavailable, match="A700"):
            send(node, small_object())
        assert node.failures == []


def test_text_of_an_exception_reaches_neither_log_nor_console(folder, capfd, caplog):
    def bug(request, data_set):
        raise ValueError(PATIENT)

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG), running_node(folder, receive=bug) as node:
            with pytest.raises(DestinationUnavailable, match="0110"):
                send(node, small_object())
            assert node.failures == ["ValueError"]
            with associated(node) as connection:
                connection.sendall(pdata(value(1, 3, PATIENT.encode())))
                read_pdu(connection)
    finally:
        logging.getLogger().removeHandler(handler)
    out, err = capfd.readouterr()
    assert PATIENT not in out + err + caplog.text
    assert [record for record in records if record.name.startswith("pynetdicom")] == []


class Faulty:
    """A reception with a bug: it raises where it may not."""

    def __init__(self, error: Exception, abandoned: list[str]) -> None:
        self._error, self._abandoned = error, abandoned

    def room(self) -> memoryview:
        return memoryview(bytearray(1000))

    def advance(self, count: int) -> None:
        raise self._error

    def finish(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        self._abandoned.append("once")


@pytest.mark.parametrize(
    "error", [ValueError(PATIENT), OSError(5, PATIENT), TimeoutError(PATIENT), ZeroDivisionError()]
)
def test_bug_in_a_reception_is_a_status_and_a_failure_and_no_breach_by_the_peer(node, error):
    abandoned = []
    broken = Listener(
        node.settings, lambda _: Faulty(error, abandoned), node.refusals.append, failed=node.failures.append
    )
    broken.start()
    try:
        raw = socket.create_connection(("127.0.0.1", broken.bound_port), 5)
        with node.client().wrap_socket(raw, server_hostname="localhost") as connection:
            connection.sendall(request_pdu())
            read_pdu(connection)
            for count in (1, 2):
                assert command(connection, 3, store_command(), b"data set").ushort(Tag.STATUS) == 0x0110
                assert node.failures == [type(error).__name__] * count
                assert abandoned == ["once"] * count
        assert node.refusals == []
    finally:
        broken.drain(0)


def test_bug_where_a_request_is_answered_ends_the_association_and_is_reported(node, monkeypatch):
    monkeypatch.setattr(AcceptedAssociation, "answer", lambda *_: 1 / 0)
    with associated(node) as connection:
        connection.sendall(pdata(value(3, 3, encode(store_command())), value(3, 2, b"data set")))
        assert read_pdu(connection)[:1] in (b"", b"\x07")
    until(lambda: node.failures == ["ZeroDivisionError"] and not node.listener.running)
    assert node.refusals == []


def test_hook_that_raises_does_not_let_a_stranger_in(folder):
    with running_node(folder) as node:
        broken = Listener(node.settings, lambda *_: None, lambda _: 1 / 0, failed=node.failures.append)
        broken.start()
        try:
            raw = socket.create_connection(("127.0.0.1", broken.bound_port), 5)
            with node.client().wrap_socket(raw, server_hostname="localhost") as connection:
                connection.sendall(request_pdu("STRANGER"))
                assert rejection(read_pdu(connection)) == (1, 1, 3)
            until(lambda: node.failures == ["ZeroDivisionError"])
        finally:
            broken.drain(0)


# --- plain port
