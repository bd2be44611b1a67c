"""The listener over real TLS: what is kept, what is turned away and how, and that nobody harms anybody else."""

from __future__ import annotations

import datetime
import logging
import re
import socket
import ssl
import struct
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE
from support.network import (
    CT,
    EXPLICIT,
    PATIENT,
    abort,
    node_client_context,
    read_pdu,
    rejection,
    request_pdu,
    running_node,
    sample,
    small_object,
    until,
    with_titles,
)

from radnode import pki
from radnode.errors import ConfigError, DestinationRefused, DestinationUnavailable, StoreUnavailable
from radnode.network import wire
from radnode.network.command_set import NO_DATA_SET, CommandSet, Tag, encode
from radnode.network.contexts import VERIFICATION, proposed
from radnode.network.server import Listener
from radnode.network.storage_scu import echo, open_destination
from radnode.part10 import read_file_meta


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    return folder


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other-pki")
    pki.make_test_pki(folder)
    return folder


@pytest.fixture
def node(folder):
    with running_node(folder) as node:
        yield node


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


def handshake_fails(node, context: ssl.SSLContext) -> None:
    """Also when the failure shows only with the first byte after it, as in TLS 1.3."""
    raw = socket.create_connection(("127.0.0.1", node.port), 5)
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False) as connection,
    ):
        connection.do_handshake()
        connection.sendall(request_pdu())
        if not connection.recv(1):
            raise ConnectionResetError


@pytest.mark.parametrize("noise", [bytes(request_pdu()), b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff" * 50])
def test_plain_tcp_on_the_tls_port_is_closed_and_reported(node, noise):
    with socket.create_connection(("127.0.0.1", node.port), 5) as connection:
        connection.sendall(noise)
        assert read_pdu(connection) == b""
    assert node.await_refusals() == ["tls_plain_tcp"]
    assert node.refusals[0].address == "127.0.0.1"


def test_no_client_certificate_is_refused(node):
    handshake_fails(node, node.client(None))
    assert node.await_refusals() == ["tls_no_client_certificate"]


def test_certificate_of_a_foreign_authority_is_refused(node, other_folder):
    context = node.client(None)
    context.load_cert_chain(other_folder / "modality.crt", other_folder / "modality.key")
    handshake_fails(node, context)
    assert node.await_refusals() == ["tls_unknown_authority"]


def resigned(folder, target, begin: datetime.timedelta, end: datetime.timedelta):
    """Write the modality's certificate with other dates and return its serial number."""
    authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    old = x509.load_pem_x509_certificate((folder / "modality.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().issuer_name(old.issuer).subject_name(old.subject)
    builder = builder.public_key(old.public_key()).serial_number(x509.random_serial_number())
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    new = builder.not_valid_before(now + begin).not_valid_after(now + end).sign(authority_key, hashes.SHA256())
    target.write_bytes(new.public_bytes(serialization.Encoding.PEM))
    return new.serial_number


@pytest.mark.parametrize(
    ("begin", "end", "rule"),
    [(-20, -1, "tls_certificate_expired"), (1, 20, "tls_certificate_not_yet_valid")],
)
def test_certificate_outside_its_dates_is_refused(node, tmp_path, begin, end, rule):
    resigned(node.folder, tmp_path / "late.crt", datetime.timedelta(days=begin), datetime.timedelta(days=end))
    context = node.client(None)
    context.load_cert_chain(tmp_path / "late.crt", node.folder / "modality.key")
    handshake_fails(node, context)
    assert node.await_refusals() == [rule]


def test_revoked_certificate_is_refused_and_others_are_not(folder, tmp_path):
    authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    serial = resigned(folder, tmp_path / "revoked.crt", -datetime.timedelta(days=1), datetime.timedelta(days=9))
    revoked = x509.RevokedCertificateBuilder().serial_number(serial)
    revoked = revoked.revocation_date(now - datetime.timedelta(hours=1)).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    crl = (
        crl.last_update(now - datetime.timedelta(hours=1))
        .next_update(now + datetime.timedelta(days=1))
        .add_revoked_certificate(revoked)
    )
    path = tmp_path / "ca.crl"
    path.write_bytes(crl.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    with running_node(folder, tls={"crl": path}) as node:
        context = node.client(None)
        context.load_cert_chain(tmp_path / "revoked.crt", folder / "modality.key")
        handshake_fails(node, context)
        assert node.await_refusals() == ["tls_certificate_revoked"]
        assert echo_milliseconds(node) < 1000


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_1_1_is_refused(node):
    context = node.client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    handshake_fails(node, context)
    assert node.await_refusals() == ["tls_version"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_served_with_forward_secrecy(node, version):
    context = node.client()
    context.minimum_version = context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", node.port), 5)
    with context.wrap_socket(raw, server_hostname="localhost") as connection:
        suite = connection.cipher()[0]
        assert "GCM" in suite or "CHACHA20" in suite
        connection.sendall(request_pdu())
        assert read_pdu(connection)[:1] == b"\x02"


def test_suite_without_forward_secrecy_is_refused(node):
    context = node.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    handshake_fails(node, context)
    assert node.await_refusals() == ["tls_no_shared_cipher"]


# --- association refusals: the triple on the wire, and exactly one Refusal


@pytest.mark.parametrize(
    ("pdu", "triple", "rule"),
    [
        (request_pdu(calling="STRANGER"), (1, 1, 3), "calling_ae_title_unknown"),
        (request_pdu(called="WRONG"), (1, 1, 7), "called_ae_title_unknown"),
        (request_pdu(calling="ADMIN"), (1, 1, 3), "certificate_of_another"),
        (request_pdu(calling="ELSEWHERE"), (1, 1, 3), "address_not_allowed"),
        (request_pdu(calling="UNBOUND"), (1, 1, 3), "calling_ae_title_unbound"),
        (with_titles(request_pdu(), calling=b""), (1, 1, 3), "calling_ae_title_unknown"),
        (with_titles(request_pdu(), called=b""), (1, 1, 7), "called_ae_title_unknown"),
        (with_titles(request_pdu(), called=b"\x00\xff"), (1, 1, 7), "called_ae_title_unknown"),
        (
            request_pdu().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"),
            (1, 1, 2),
            "application_context_unknown",
        ),
        (request_pdu()[:6] + b"\x00\x02" + request_pdu()[8:], (1, 2, 2), "protocol_version_unsupported"),
        (request_pdu()[:6] + b"\x00\x00" + request_pdu()[8:], (1, 2, 2), "protocol_version_unsupported"),
    ],
)
def test_association_is_rejected_with_its_triple(node, pdu, triple, rule):
    with node.connect() as connection:
        connection.sendall(pdu)
        assert rejection(read_pdu(connection)) == triple
    assert node.await_refusals() == [rule]
    assert node.refusals[0].certificate == pki.fingerprint(node.folder / "modality.crt")
    assert node.listener.running == 0
    assert echo_milliseconds(node) < 1000


@pytest.mark.parametrize(
    ("title", "escaped"),
    [
        (b"EVIL\r\nlevel=info", "EVIL\\r\\nlevel=inf"),
        (b"\x1b[31mRED\x00", "\\x1b[31mRED\\x00"),
        (b"A\\B\xff", "A\\\\B\\xff"),
    ],
)
def test_hostile_calling_title_is_rejected_and_escaped(node, title, escaped):
    with node.connect() as connection:
        connection.sendall(with_titles(request_pdu(), calling=title))
        assert rejection(read_pdu(connection)) == (1, 1, 3)
    assert node.await_refusals() == ["calling_ae_title_unknown"]
    reported = node.refusals[0].ae_title
    assert reported.startswith(escaped[:12])
    assert reported.isascii() and reported.isprintable()


def test_protocol_version_with_other_bits_beside_bit_0_is_accepted(node):
    with node.connect() as connection:
        pdu = request_pdu()
        pdu[6:8] = b"\x00\x03"
        connection.sendall(pdu)
        assert read_pdu(connection)[:1] == b"\x02"


@pytest.mark.parametrize(
    ("calling", "name", "results", "rules"),
    [("ADMIN", "admin", {1: 0, 3: 3}, ["store_not_permitted"]), ("STOREONLY", "modality", {1: 3, 3: 0}, [])],
)
def test_what_a_peer_may_not_use_is_not_negotiated(node, calling, name, results, rules):
    with node.connect(name) as connection:
        connection.sendall(request_pdu(calling))
        pdu = read_pdu(connection)
    assert pdu[:1] == b"\x02"
    accepted, _ = wire.read_associate_ac(pdu[6:])
    assert accepted.keys() == {identifier for identifier, result in results.items() if result == 0}
    until(lambda: len(node.refusals) >= len(rules))
    assert [refusal.rule for refusal in node.refusals] == rules


def test_unknown_syntaxes_are_answered_3_and_4(node):
    with node.connect() as connection:
        connection.sendall(request_pdu(offers=[("1.2.3.4", EXPLICIT), (CT, "1.2.3.5"), (CT, EXPLICIT)]))
        body = read_pdu(connection)[6:]
    results = {body[i + 4]: body[i + 6] for i in range(68, len(body) - 8) if body[i : i + 2] == b"\x21\x00"}
    assert results == {1: 3, 3: 4, 5: 0}


# --- limits


def test_limits_reject_as_transient_and_recover(folder):
    with running_node(folder, max_associations=3, max_associations_per_peer=2) as node:
        first, second = associated(node), associated(node)
        with node.connect() as third:
            third.sendall(request_pdu())
            assert rejection(read_pdu(third)) == (2, 3, 2)
        other = associated(node, calling="SECOND")
        with node.connect() as fifth:
            fifth.sendall(request_pdu("SECOND"))
            assert rejection(read_pdu(fifth)) == (2, 3, 2)
        assert node.await_refusals(2) == ["too_many_associations_of_peer", "too_many_associations"]
        for connection in (first, second, other):
            connection.close()
        until(lambda: node.listener.running == 0)
        assert echo_milliseconds(node) < 1000


def test_silent_clients_and_half_a_client_hello_do_not_slow_an_echo(folder):
    with running_node(folder, handshake_seconds=3) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port), 5) for _ in range(400)]
        for connection in silent[:50]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        began = time.monotonic()
        milliseconds = echo_milliseconds(node)
        whole = time.monotonic() - began
        print(f"\n400 silent clients: C-ECHO {milliseconds:.1f} ms, with connect and TLS {whole * 1000:.0f} ms")
        assert whole < 1
        for connection in silent:
            assert read_pdu(connection) == b""
            connection.close()
        assert set(node.await_refusals(400)) == {"tls_timeout"}


def test_peer_that_never_asks_is_closed_at_the_deadline(folder):
    with running_node(folder, request_seconds=0.5) as node:
        with node.connect() as connection:
            assert read_pdu(connection) == b""
        assert node.await_refusals() == ["association_request_timeout"]


def test_half_a_request_and_a_drip_feed_end_at_the_deadline(folder):
    with running_node(folder, request_seconds=0.7) as node:
        began = time.monotonic()
        with node.connect() as connection:
            for byte in bytes(request_pdu()[:10]):
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.1)
            assert abort(read_pdu(connection)) == (0, 0)
        assert time.monotonic() - began < 4
        assert node.await_refusals() == ["pdu_timeout"]


def test_idle_association_is_aborted_and_gives_its_slot_back(folder):
    with running_node(folder, idle_seconds=0.5) as node:
        with associated(node) as connection:
            assert node.listener.running == 1
            assert abort(read_pdu(connection))[0] in (0, 2)
        until(lambda: node.listener.running == 0)
        assert node.events[-1].end == "aborted"


def test_stalled_pdu_within_the_association_gives_its_slot_back(folder):
    with running_node(folder, idle_seconds=0.5) as node:
        with associated(node) as connection:
            connection.sendall(b"\x04\x00\x00\x00\x10\x00abc")
            assert abort(read_pdu(connection)) == (2, 0)
        until(lambda: node.listener.running == 0)
        assert node.await_refusals() == ["pdu_timeout"]


def test_slow_receive_is_not_idleness(folder):
    def slow(request, data_set):
        time.sleep(1.2)

    with running_node(folder, receive=slow, idle_seconds=0.5) as node:
        send(node, small_object(), small_object())
        assert len(node.received) == 2


def test_peer_that_vanishes_within_an_object_gives_its_slot_back(node):
    connection = associated(node)
    for pdu in wire.p_data(3, encode(store_command()), command=True, max_length=16384):
        connection.sendall(pdu)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    connection.close()
    until(lambda: node.listener.running == 0)
    until(lambda: len(node.events) == 2)
    assert node.events[1].end == "aborted"
    assert node.received == []


def test_peer_that_leaves_after_the_handshake_is_reported_once(node):
    node.connect().close()
    assert node.await_refusals() == ["no_association_request"]


# --- PDUs and messages that break the standard


@pytest.mark.parametrize(
    ("sent", "answer", "rule"),
    [
        (b"\x09\x00\x00\x00\x00\x04abcd", (0, 0), "pdu_unrecognized"),
        (b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03", (0, 0), "pdu_malformed"),
        (b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00", (0, 0), "pdu_unexpected"),
        (b"\x01\x00\xff\xff\xff\xff", (0, 0), "pdu_too_long"),
        (request_pdu().replace(b"\x20\x00\x00\x2e\x01", b"\x20\x00\x00\x2e\x02"), (0, 0), "pdu_malformed"),
        (re.sub(rb"(\x20\x00\x00.)\x03", b"\\1\x01", request_pdu()), (0, 0), "pdu_malformed"),
        (request_pdu().replace(b"\x10\x00\x00\x15", b"\x10\x00\xff\x15"), (0, 0), "pdu_malformed"),
        (request_pdu().replace(b"1.2.840.10008.5.1.4.1.1.2", b"DOE^JANE.1.4.1.1.2.3.4\r\n1"), (0, 0), "pdu_malformed"),
    ],
)
def test_breach_before_the_association_is_aborted(node, sent, answer, rule):
    with node.connect() as connection:
        began = time.monotonic()
        connection.sendall(sent)
        assert abort(read_pdu(connection)) == answer
        assert time.monotonic() - began < node.settings.node.request_seconds / 2  # at once, not at the deadline
    assert node.await_refusals() == [rule]
    assert node.failures == []
    assert echo_milliseconds(node) < 1000


def value(context_id: int, control: int, content: bytes) -> bytes:
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def pdata(*values: bytes) -> bytes:
    return b"\x04\x00" + struct.pack(">L", sum(map(len, values))) + b"".join(values)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x09\x00\x00\x00\x00\x04abcd", (2, 1)),
        (bytes(request_pdu()), (2, 2)),
        (b"\x04\x00\xff\xff\xff\xff", (2, 6)),
        (b"\x04\x00" + struct.pack(">L", 131073), (2, 6)),
        (pdata(b"\x00\x00\x00\x00"), (2, 6)),
        (pdata(b"\x00\x00\x00\x99\x01\x03"), (2, 6)),
        (pdata(value(99, 3, b"")), (2, 6)),
        (pdata(value(3, 2, b"data before command")), (2, 6)),
        (pdata(value(1, 3, b"junk")), (2, 6)),
        (pdata(value(1, 3, encode({Tag.COMMAND_FIELD: 0x8030, Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET}))), (2, 6)),
    ],
)
def test_breach_within_the_association_is_aborted(node, sent, answer):
    with associated(node) as connection:
        connection.sendall(sent)
        assert abort(read_pdu(connection)) == answer
    until(lambda: node.listener.running == 0)
    assert len(node.await_refusals()) == 1
    assert node.failures == []
    assert node.received == []


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


def test_object_over_the_limit_is_a700_and_the_association_goes_on(folder):
    with running_node(folder, max_object_bytes=100_000) as node:
        too_large, small = small_object(padding=200_000), small_object()
        context = node_client_context(node)
        with open_destination(
            node.destination(),
            context=context,
            calling_ae_title="MODALITY1",
            objects=[too_large],
            timeout_seconds=5,
        ) as association:
            with pytest.raises(DestinationUnavailable, match="A700"):
                association.store(too_large)
            assert association.store(small) == 0
        assert len(node.received) == 1


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("calling", "rule"),
    [("HERE", None), ("MODALITY1", "calling_ae_title_needs_tls"), ("ELSEWHERE", "address_not_allowed")],
)
def test_plain_port_binds_titles_to_addresses(folder, calling, rule):
    with running_node(folder, plain_port=free_port()) as node:
        destination = node.destination(port=node.listener.bound_plain_port, tls=False)
        if rule is None:
            part10 = small_object()
            with open_destination(
                destination, context=None, calling_ae_title=calling, objects=[part10], timeout_seconds=5
            ) as association:
                association.store(part10)
            assert node.received[0][0].peer.certificate is None
        else:
            with pytest.raises(DestinationRefused, match="1/1/3"):
                echo(destination, context=None, calling_ae_title=calling, timeout_seconds=5)
            assert node.await_refusals() == [rule]


def test_silent_client_of_the_plain_port_is_closed_at_the_deadline(folder):
    with running_node(folder, plain_port=free_port(), request_seconds=0.4) as node:
        with socket.create_connection(("127.0.0.1", node.listener.bound_plain_port), 5) as connection:
            assert read_pdu(connection) == b""
        assert node.await_refusals() == ["association_request_timeout"]


# --- end


def test_drain_lets_a_running_store_finish_and_accepts_nobody(folder):
    entered, go_on = threading.Event(), threading.Event()

    def slow(request, data_set):
        entered.set()
        go_on.wait(5)

    with running_node(folder, receive=slow) as node:
        outcome = []
        sender = threading.Thread(target=lambda: outcome.append(send(node, small_object())))
        sender.start()
        entered.wait(5)
        draining = threading.Thread(target=node.listener.drain, args=(5,))
        draining.start()
        time.sleep(0.3)
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", node.port), 1)
        go_on.set()
        sender.join(5)
        draining.join(5)
        assert outcome == [None]
        assert len(node.received) == 1


def test_drain_aborts_at_the_deadline(folder):
    with running_node(folder) as node, associated(node) as connection:
        began = time.monotonic()
        node.listener.drain(0.3)
        assert time.monotonic() - began < 2
        assert abort(read_pdu(connection)) == (0, 0)
        until(lambda: node.listener.running == 0)


def test_taken_port_is_a_config_error(node):
    settings = node.settings.model_copy(update={"node": node.settings.node.model_copy(update={"port": node.port})})
    with pytest.raises(ConfigError, match="Cannot listen"):
        Listener(settings, lambda *_: None, lambda _: None)


def test_proposals_over_128_are_refused_before_the_network():
    with pytest.raises(ValueError, match="128"):
        proposed((f"1.2.{n}", EXPLICIT) for n in range(129))
