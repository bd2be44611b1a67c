"""Associations: rejected with their triple, limited, and given only what the peer may use."""

from __future__ import annotations

import pytest
from pydicom.uid import MRImageStorage, RLELossless
from pynetdicom import build_context
from support.network import (
    CT,
    EXPLICIT,
    associated,
    command,
    echo_milliseconds,
    read_pdu,
    rejection,
    request_pdu,
    running_node,
    store_command,
    until,
    with_titles,
)

from radnode import pki
from radnode.network import wire
from radnode.network.command_set import Tag
from radnode.network.contexts import VERIFICATION, proposed

MR, RLE = str(MRImageStorage), str(RLELossless)


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
    assert results_of(body) == {1: 3, 3: 4, 5: 0}


def results_of(body: bytes) -> dict[int, int]:
    """The result of each presentation context of an A-ASSOCIATE-AC (PS3.8 Table 9-18)."""
    return {body[i + 4]: body[i + 6] for i in range(68, len(body) - 8) if body[i : i + 2] == b"\x21\x00"}


def test_only_what_is_configured_is_accepted_and_in_the_configured_order(folder):
    private, implicit = "1.3.12.2.1107.5.9.1", "1.2.840.10008.1.2"
    network = {"sop_classes": ["CTImageStorage", private], "transfer_syntaxes": ["ImplicitVRLittleEndian", EXPLICIT]}
    with running_node(folder, network=network) as node, node.connect() as connection:
        both = build_context(CT, [EXPLICIT, implicit])
        both.context_id = 9
        offers = [(CT, RLE), (MR, EXPLICIT), (private, EXPLICIT), (VERIFICATION, implicit)]
        connection.sendall(wire.associate_rq("MODALITY1", "RADNODE", [*proposed(offers), both]))
        body = read_pdu(connection)[6:]
        accepted, _ = wire.read_associate_ac(body)
        assert results_of(body) == {1: 4, 3: 3, 5: 0, 7: 0, 9: 0}
        assert accepted[9] == implicit
        assert command(connection, 5, store_command(AFFECTED_SOP_CLASS_UID=private), b"kept").ushort(Tag.STATUS) == 0
        assert [request.sop_class_uid for request, _ in node.received] == [private]


def test_class_that_no_detector_takes_is_answered_3_where_the_policy_says_refuse(folder):
    with (
        running_node(folder, network={"unanalysable": "refuse"}, analysable=[CT]) as node,
        node.connect() as connection,
    ):
        connection.sendall(request_pdu(offers=[(MR, EXPLICIT), (CT, EXPLICIT)]))
        assert results_of(read_pdu(connection)[6:]) == {1: 3, 3: 0}


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
