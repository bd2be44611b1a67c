"""Storage Commitment on the wire: pynetdicom as the peer that asks and as the one that is told, and raw breaches."""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import contextmanager
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel
from support.network import (
    CT,
    EXPLICIT,
    command,
    node_client_context,
    read_pdu,
    request_pdu,
    running_node,
    small_object,
    store_command,
    until,
)

from radnode import pki
from radnode.commitment_sets import (
    IMPLICIT,
    MAX_BYTES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    write_report,
    write_request,
)
from radnode.errors import (
    AuditError,
    DestinationRefused,
    DestinationUnavailable,
    DuplicateTransaction,
    PeerMovedOn,
    StoreUnavailable,
)
from radnode.model import CommitmentReport, CommitmentRequest, FailedReference, Reference
from radnode.network import wire
from radnode.network.command_set import CommandSet, Tag, encode
from radnode.network.commitment import OFFERS, CommittingAssociation, ReportAssociation
from radnode.network.hooks import CommitmentHooks
from radnode.settings import CommitSettings, DestinationSettings, PeerSettings

KEPT, LOST = Reference(CT, "1.2.3.4"), Reference(CT, "1.2.3.5")
REQUEST = CommitmentRequest("1.2.99.1", (KEPT, LOST))
REPORT = CommitmentReport("1.2.99.1", (KEPT,), (FailedReference(LOST, 0x0112),))
PACS = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, commitment=True)


class Committing:
    """Hooks that remember, and report as the test says."""

    def __init__(self) -> None:
        self.requests, self.reports, self.declined, self.outcomes = [], [], [], []
        self.error: Exception | None = None
        self.answer: CommitmentReport | None = None

    def requested(self, peer, request):
        if self.error is not None:
            raise self.error
        self.requests.append((peer.ae_title, request))

    def report(self, _peer, channel):
        if self.answer is not None:
            try:
                channel.report(self.answer)
            except (PeerMovedOn, DestinationUnavailable) as error:
                self.outcomes.append(type(error))
            else:
                self.outcomes.append(None)

    def reported(self, peer, report):
        if self.error is not None:
            raise self.error
        self.reports.append((peer.ae_title, report))

    def hooks(self) -> CommitmentHooks:
        return CommitmentHooks(
            self.requested, self.report, self.reported, lambda _peer, error, status: self.declined.append(status)
        )


@pytest.fixture
def hooks():
    return Committing()


@pytest.fixture
def node(folder, lane, hooks):
    modality = pki.fingerprint(folder / "modality.crt")
    known = (
        PeerSettings(ae_title="MODALITY1", certificate_sha256=modality, may=("store", "echo", "commit")),
        PeerSettings(ae_title="STOREONLY", certificate_sha256=modality, may=("store",)),
        PeerSettings(ae_title="PACS", certificate_sha256=modality, may=("echo",)),
    )
    with running_node(folder, known=known, commitment=hooks.hooks(), destinations=(PACS,)) as node:
        yield node


@contextmanager
def associated(node, calling="MODALITY1", roles=(), handlers=()):
    ae = AE(calling)
    ae.add_requested_context(StorageCommitmentPushModel)
    ae.add_requested_context(CTImageStorage, EXPLICIT)
    association = ae.associate(
        "127.0.0.1",
        node.port,
        ae_title="RADNODE",
        ext_neg=list(roles),
        evt_handlers=list(handlers),
        tls_args=(node_client_context(node), "localhost"),
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def small_dataset() -> Dataset:
    return dcmread(BytesIO(small_object()))


def data_set(encoded: bytes) -> Dataset:
    return read_dataset(BytesIO(encoded), True, True)


def ask(association, request=REQUEST, action=1, **changes) -> int:
    names = {"class_uid": StorageCommitmentPushModel, "instance_uid": STORAGE_COMMITMENT_INSTANCE, **changes}
    information = data_set(write_request(request, IMPLICIT))
    status, _ = association.send_n_action(information, action, **names)
    return status.Status


def tell(association, report=REPORT, event=2) -> int:
    information = data_set(write_report(report, IMPLICIT))
    status, _ = association.send_n_event_report(
        information, event, StorageCommitmentPushModel, STORAGE_COMMITMENT_INSTANCE
    )
    return status.Status


def told(answers, status=0x0000):
    """A handler of N-EVENT-REPORT that remembers what was said."""

    def handle(event):
        answers.append((event.event_type, event.event_information))
        return status, None

    return (evt.EVT_N_EVENT_REPORT, handle)


def test_request_is_kept_before_it_is_answered(node, hooks):
    with associated(node) as association:
        assert ask(association) == 0x0000
        assert hooks.requests == [("MODALITY1", REQUEST)]


def test_report_comes_on_the_association_that_stays_open(node, hooks):
    hooks.answer = REPORT
    answers = []
    with associated(node, handlers=[told(answers)]) as association:
        assert ask(association) == 0x0000
        until(lambda: hooks.outcomes)
        assert association.send_c_store(small_dataset()).Status == 0x0000
    assert hooks.outcomes == [None]
    [(event, information)] = answers
    assert event == 2
    assert information.TransactionUID == REPORT.TransactionUID
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == ["1.2.3.4"]
    [failed] = information.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.2.3.5", 0x0112)
    assert node.failures == []


def test_report_of_many_instances_comes_in_pieces_that_the_peer_takes(node, hooks):
    many = tuple(Reference(CT, f"1.2.840.113619.2.55.3.{number}") for number in range(3000))
    hooks.answer = CommitmentReport("1.2.99.2", many)
    answers = []
    with associated(node, handlers=[told(answers)]) as association:
        assert ask(association) == 0x0000
        until(lambda: hooks.outcomes)
    [(event, information)] = answers
    assert (event, len(information.ReferencedSOPSequence)) == (1, 3000)


def test_report_is_left_to_another_association_when_the_peer_releases_at_once(node, hooks):
    hooks.answer = REPORT
    with associated(node) as association:
        assert ask(association) == 0x0000
    until(lambda: hooks.outcomes)
    assert hooks.outcomes == [PeerMovedOn]
    until(lambda: node.listener.running == 0)


def test_peer_that_goes_on_with_other_requests_is_served_first(node, hooks):
    hooks.answer = REPORT
    with associated(node) as association:
        assert ask(association) == 0x0000
        assert ask(association, CommitmentRequest("1.2.99.7", (KEPT,))) == 0x0000
        assert association.send_c_store(small_dataset()).Status == 0x0000
    until(lambda: hooks.outcomes)
    assert hooks.outcomes[0] is PeerMovedOn
    assert node.failures == []


def test_report_that_the_peer_refuses_is_no_success(node, hooks):
    hooks.answer = REPORT
    with associated(node, handlers=[told([], 0x0110)]) as association:
        assert ask(association) == 0x0000
        until(lambda: hooks.outcomes)
        assert hooks.outcomes == [DestinationUnavailable]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DuplicateTransaction("again"), 0x0131),
        (StoreUnavailable("full"), 0x0213),
        (AuditError("no trail"), 0x0110),
    ],
)
def test_request_that_the_node_does_not_take_gets_its_status(node, hooks, error, status):
    hooks.error = error
    with associated(node) as association:
        assert ask(association) == status
    assert hooks.declined == [status]


def test_exception_of_the_node_is_a_processing_failure_of_which_only_the_class_is_told(node, hooks):
    hooks.error = RuntimeError("DOE^JANE")
    with associated(node) as association:
        assert ask(association) == 0x0110
    assert node.failures == ["RuntimeError"]


def test_request_about_something_else_is_declined(node, hooks):
    with associated(node) as association:
        assert ask(association, action=2) == 0x0123
        assert ask(association, instance_uid="1.2.3") == 0x0112
        assert tell(association) == 0x0124
    assert hooks.requests == hooks.reports == []
    assert hooks.declined == [0x0123, 0x0112, 0x0124]


def test_peer_that_may_not_commit_is_offered_no_context(node, hooks):
    with associated(node, calling="STOREONLY") as association:
        accepted = [context.abstract_syntax for context in association.accepted_contexts]
        assert accepted == [CTImageStorage]
    assert node.await_refusals() == ["commit_not_permitted"]
    assert not node.refusals[0].is_alert


def test_destination_reports_on_an_association_of_its_own_in_the_role_of_scp(node, hooks):
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    with associated(node, calling="PACS", roles=[role]) as association:
        [context] = association.accepted_contexts
        assert (context.as_scu, context.as_scp) == (False, True)
        assert tell(association) == 0x0000
        assert tell(association, event=3) == 0x0113
    assert hooks.reports == [("PACS", REPORT)]


def test_modality_is_not_given_the_role_of_scp(node):
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    with associated(node, roles=[role]) as association:
        assert STORAGE_COMMITMENT not in [context.abstract_syntax for context in association.accepted_contexts]


def test_role_of_scu_is_answered(node):
    role = build_role(StorageCommitmentPushModel, scu_role=True)
    with associated(node, roles=[role]) as association:
        assert ask(association) == 0x0000
        assert association.acceptor.role_selection[StorageCommitmentPushModel].scu_role is True


# --- raw


def action(**changes) -> dict:
    values = {
        Tag.REQUESTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        Tag.COMMAND_FIELD: 0x0130,
        Tag.MESSAGE_ID: 7,
        Tag.COMMAND_DATA_SET_TYPE: 1,
        Tag.REQUESTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_INSTANCE,
        Tag.ACTION_TYPE_ID: 1,
    }
    return values | {Tag[name]: value for name, value in changes.items()}


@contextmanager
def raw(node):
    offers = [(STORAGE_COMMITMENT, EXPLICIT), (CT, EXPLICIT)]
    with node.connect() as connection:
        connection.sendall(request_pdu(offers=offers))
        assert read_pdu(connection)[:1] == b"\x02"
        yield connection


ENCODED = write_request(REQUEST, EXPLICIT)


@pytest.mark.parametrize(
    ("values", "content", "status"),
    [
        (action(), ENCODED, 0x0000),
        (action(REQUESTED_SOP_CLASS_UID=CT), ENCODED, 0x0118),
        (action(), b"", 0x0115),
        (action(), ENCODED[:-5], 0x0115),
        (action(), b"junk" * 10, 0x0115),
        (action(), ENCODED.replace(b"1.2.3.4\0", b"../../x\0"), 0x0115),
        (action(), write_request(REQUEST, IMPLICIT), 0x0115),
        (action(), ENCODED[:20], 0x0115),
        (action(), bytes(MAX_BYTES + 10), 0x0213),
        (store_command(AFFECTED_SOP_CLASS_UID=STORAGE_COMMITMENT), ENCODED, 0x0122),
        (action(COMMAND_FIELD=0x0110), ENCODED, 0x0122),
        (action(COMMAND_FIELD=0x0140), ENCODED, 0x0122),
    ],
    ids=[
        *("legal", "other class", "empty", "cut off", "junk", "path as UID", "other syntax"),
        *("no reference", "too long", "C-STORE", "N-GET", "N-CREATE"),
    ],
)
def test_every_request_is_answered_and_the_next_is_served(node, hooks, values, content, status):
    with raw(node) as connection:
        answer = command(connection, 1, values, content)
        assert answer.ushort(Tag.STATUS) == status
        assert answer.uid(Tag.AFFECTED_SOP_CLASS_UID) in (STORAGE_COMMITMENT, CT)
        assert command(connection, 1, action(), ENCODED).ushort(Tag.STATUS) == 0x0000
    assert len(hooks.requests) == 1 + (status == 0)
    assert node.failures == []


def test_request_without_a_data_set_is_declined(node, hooks):
    with raw(node) as connection:
        assert command(connection, 1, action(COMMAND_DATA_SET_TYPE=0x0101)).ushort(Tag.STATUS) == 0x0115
    assert hooks.declined == [0x0115]


def test_request_in_a_storage_context_is_declined(node, hooks):
    with raw(node) as connection:
        assert command(connection, 3, action(), ENCODED).ushort(Tag.STATUS) == 0x0122


def test_request_without_action_type_is_declined(node, hooks):
    values = action()
    del values[Tag.ACTION_TYPE_ID]
    with raw(node) as connection:
        assert command(connection, 1, values, ENCODED).ushort(Tag.STATUS) == 0x0123
    assert hooks.requests == []


def response(message_id: int, field: int = 0x8100) -> bytes:
    return encode(
        {
            Tag.COMMAND_FIELD: field,
            Tag.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
            Tag.COMMAND_DATA_SET_TYPE: 0x0101,
            Tag.STATUS: 0,
        }
    )


def asked_back(connection) -> CommandSet:
    """Ask, and return the command set of the N-EVENT-REPORT that follows; its data set is read too."""
    assert command(connection, 1, action(), ENCODED).ushort(Tag.STATUS) == 0x0000
    pdu = read_pdu(connection)
    assert pdu[:1] == b"\x04", pdu[:10].hex()
    found = CommandSet.parse(pdu[12:])
    assert read_pdu(connection)[:1] == b"\x04"
    return found


def say(connection, content: bytes) -> None:
    for pdu in wire.p_data(1, content, command=True, max_length=16384):
        connection.sendall(pdu)


def test_response_to_the_report_ends_it(node, hooks):
    hooks.answer = REPORT
    with raw(node) as connection:
        request = asked_back(connection)
        assert request.ushort(Tag.COMMAND_FIELD) == 0x0100
        assert request.ushort(Tag.EVENT_TYPE_ID) == 2
        say(connection, response(request.ushort(Tag.MESSAGE_ID)))
        until(lambda: hooks.outcomes == [None])


@pytest.mark.parametrize(
    ("message_id", "field"), [(4711, 0x8100), (1, 0x8130)], ids=["another message", "another command"]
)
def test_response_to_something_else_is_a_breach(node, hooks, message_id, field):
    hooks.answer = REPORT
    with raw(node) as connection:
        asked_back(connection)
        say(connection, response(message_id, field))
        assert read_pdu(connection)[:1] == b"\x07"
    until(lambda: hooks.outcomes == [PeerMovedOn])
    assert node.await_refusals() == ["message_malformed"]


def test_response_that_nobody_waits_for_is_a_breach(node, hooks):
    with raw(node) as connection:
        say(connection, response(1))
        assert read_pdu(connection)[:1] == b"\x07"
    assert node.await_refusals() == ["message_malformed"]


def test_peer_that_vanishes_while_it_is_told_leaves_nothing_behind(node, hooks):
    hooks.answer = REPORT
    with raw(node) as connection:
        asked_back(connection)
    until(lambda: hooks.outcomes == [PeerMovedOn])
    until(lambda: node.listener.running == 0)


def test_peer_that_asks_again_instead_of_answering_is_answered(node, hooks):
    hooks.answer = REPORT
    with raw(node) as connection:
        asked_back(connection)
        began = time.monotonic()
        assert command(connection, 1, action(), ENCODED).ushort(Tag.STATUS) == 0x0000
        assert time.monotonic() - began < 4
    until(lambda: len(hooks.outcomes) == 2)


# --- the association that this node requests


@contextmanager
def listening_modality(answers, status=0x0000, role=True, contexts=(StorageCommitmentPushModel,), **changes):
    ae = AE("MODALITY1")
    for context in contexts:
        ae.add_supported_context(context, scu_role=False if role else None, scp_role=True if role else None)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[told(answers, status)])
    try:
        commit = CommitSettings(host="127.0.0.1", port=server.server_address[1], tls=False)
        yield PeerSettings(ae_title="MODALITY1", may=("commit",), commit=commit, **changes)
    finally:
        server.shutdown()


def call(peer):
    return ReportAssociation(peer, context=None, calling_ae_title="RADNODE", timeout_seconds=5)


@pytest.mark.parametrize("role", [True, False], ids=["roles", "no roles"])
def test_peer_is_called_and_told_in_the_role_of_scp(role):
    answers = []
    with listening_modality(answers, role=role) as peer, call(peer) as channel:
        channel.report(REPORT)
    [(event, information)] = answers
    assert (event, information.TransactionUID) == (2, "1.2.99.1")


def test_peer_that_answers_with_a_failure_is_to_be_told_later():
    with (
        listening_modality([], 0x0110) as peer,
        pytest.raises(DestinationUnavailable, match="The peer MODALITY1 answered 0110"),
        call(peer) as channel,
    ):
        channel.report(REPORT)


def test_peer_that_does_not_accept_the_sop_class_is_named():
    with (
        listening_modality([], contexts=(CTImageStorage,)) as peer,
        pytest.raises(DestinationRefused, match="does not accept StorageCommitmentPushModel"),
        call(peer) as channel,
    ):
        channel.report(REPORT)


# --- the association on which this node asks


@contextmanager
def scripted_pacs(asked, *, status=0x0000, report=None, own_context=True):
    """A PACS that remembers requests and reports on the same association what `report` makes of them."""
    reporters, statuses = [], []

    def handle(event):
        asked.append(event.action_information)
        if report is not None:
            reporters.append(threading.Thread(target=send, args=(event.assoc, event.action_information)))
            reporters[-1].start()
        return status, None

    def send(association, information):
        time.sleep(0.2)
        with contextlib.suppress(RuntimeError):
            answer, _ = association.send_n_event_report(
                data_set(write_report(report(information), IMPLICIT)),
                1,
                StorageCommitmentPushModel,
                STORAGE_COMMITMENT_INSTANCE,
            )
            statuses.append(answer.get("Status"))

    ae = AE("PACS")
    ae.add_supported_context(CTImageStorage)
    if own_context:
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, handle)])
    try:
        yield PACS.model_copy(update={"port": server.server_address[1], "tls": False}), statuses
    finally:
        for reporter in reporters:
            reporter.join(10)
        server.shutdown()


def asking(destination):
    return CommittingAssociation(
        destination, context=None, calling_ae_title="RADNODE", offers=OFFERS, timeout_seconds=5
    )


def as_committed(information) -> CommitmentReport:
    references = tuple(
        Reference(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in information.ReferencedSOPSequence
    )
    return CommitmentReport(information.TransactionUID, references)


def test_destination_is_asked_and_its_report_on_the_same_association_is_answered():
    asked, taken = [], []
    with scripted_pacs(asked, report=as_committed) as (pacs, statuses):
        with asking(pacs) as association:
            association.ask(REQUEST)
            assert association.await_report(5, lambda report: taken.append((report, list(statuses))))
        until(lambda: statuses)
    assert taken == [(CommitmentReport(REQUEST.TransactionUID, REQUEST.references), [])]  # kept before it was answered
    assert statuses == [0x0000]
    [information] = asked
    assert information.TransactionUID == REQUEST.TransactionUID
    assert len(information.ReferencedSOPSequence) == 2


def test_silence_after_the_request_is_no_report_and_the_association_is_released():
    with scripted_pacs([]) as (pacs, _), asking(pacs) as association:
        association.ask(REQUEST)
        began = time.monotonic()
        assert not association.await_report(0.3, pytest.fail)
        assert time.monotonic() - began < 2


def test_report_that_was_heard_elsewhere_is_not_waited_for():
    with scripted_pacs([]) as (pacs, _), asking(pacs) as association:
        association.ask(REQUEST)
        began = time.monotonic()
        assert not association.await_report(60, pytest.fail, lambda: True)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(("error", "status"), [(StoreUnavailable("full"), 0x0213), (AuditError("not written"), 0x0110)])
def test_report_of_a_destination_that_cannot_be_kept_is_answered_with_a_failure(error, status):
    def take(_report):
        raise error

    with scripted_pacs([], report=as_committed) as (pacs, statuses):
        with pytest.raises(type(error)), asking(pacs) as association:
            association.ask(REQUEST)
            association.await_report(5, take)
        until(lambda: statuses)
    assert statuses == [status]


def test_destination_that_refuses_to_be_asked_is_to_be_asked_later():
    with (
        scripted_pacs([], status=0x0213) as (pacs, _),
        pytest.raises(DestinationUnavailable, match="answered 0213 to N-ACTION"),
        asking(pacs) as association,
    ):
        association.ask(REQUEST)


def test_destination_without_the_sop_class_is_named():
    with (
        scripted_pacs([], own_context=False) as (pacs, _),
        pytest.raises(DestinationRefused, match="The destination pacs does not accept StorageCommitmentPushModel"),
        asking(pacs) as association,
    ):
        association.ask(REQUEST)
