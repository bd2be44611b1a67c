"""One accepted association: negotiation through pynetdicom, then C-ECHO and C-STORE without decoding anything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from radnode.errors import (
    ContextMismatch,
    InvalidUID,
    MalformedDataSet,
    ObjectTooLarge,
    RadnodeError,
)
from radnode.model import PeerIdentity, Refusal, StoreRequest
from radnode.network import command_set, statuses
from radnode.network.admission import Admission, Certificate, Claim, Rejection, escape_ae_title
from radnode.network.command_set import Command, Tag
from radnode.network.contexts import VERIFICATION, Contexts
from radnode.network.messages import Message, Messages
from radnode.network.upper_layer import LINGER_SECONDS, UpperLayer

if TYPE_CHECKING:
    from pynetdicom import AE

    from radnode.settings import NodeSettings, PeerSettings


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class AssociationEvent:
    """Begin or end of an association, numbered in this process, for logs and metrics; "ended" has the final counts."""

    event: Literal["began", "ended"]
    peer: PeerIdentity
    association: int
    end: Literal["released", "aborted", "closed"] | None = None
    stored: int = 0
    failed: int = 0
    data_set_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the node does about what happens here.

    `receive` keeps one data set, given exactly as received; it returns for status 0000 or raises a
    RadnodeError, whose `status` is sent. `declined` is told of each such error, and of those that this room
    finds before `receive` is asked, with the SOP Instance UID of the command where it has one. `failed` is given
    the class name of any other exception and nothing else of it. All are called from many threads at once.
    """

    receive: Callable[[StoreRequest, bytes], None]
    refused: Callable[[Refusal], None]
    observe: Callable[[AssociationEvent], None]
    failed: Callable[[str], None]
    declined: Callable[[PeerIdentity, str | None, RadnodeError], None]

    def tell_refused(self, refusal: Refusal) -> None:
        """Report a refusal; a hook that fails changes nothing about the peer being refused."""
        try:
            self.refused(refusal)
        except Exception as error:  # noqa: BLE001 - boundary to the node; only the class name may cross it
            self.failed(type(error).__name__)

    def tell_declined(self, peer: PeerIdentity, SOPInstanceUID: str | None, error: RadnodeError) -> None:
        """Report an object that is not kept; a hook that fails changes nothing about its status."""
        try:
            self.declined(peer, SOPInstanceUID, error)
        except Exception as fault:  # noqa: BLE001 - boundary to the node; only the class name may cross it
            self.failed(type(fault).__name__)

    def tell_observer(self, event: AssociationEvent) -> None:
        """Report begin or end; a hook that fails changes nothing about the association."""
        try:
            self.observe(event)
        except Exception as error:  # noqa: BLE001 - boundary to the node; only the class name may cross it
            self.failed(type(error).__name__)


class _GatedNegotiation(ACSE):
    """pynetdicom's negotiation behind our admission."""

    def negotiate_association(self) -> None:
        """Negotiate with an admitted peer; reject any other (PS3.8 section 9.3.4)."""
        primitive = self.requestor.primitive
        if not isinstance(primitive, A_ASSOCIATE):
            self.assoc.refuse("no_association_request", "The peer connected and asked for no association.")
        elif (rejection := self.assoc.admit(primitive)) is None:
            super().negotiate_association()
            return
        else:
            self.send_reject(rejection.result, rejection.source, rejection.reason)
        self.assoc.kill()


class AcceptedAssociation(Association):
    """An association that a peer requested of the listener."""

    def __init__(
        self,
        ae: AE,
        node: NodeSettings,
        admission: Admission,
        hooks: Hooks,
        offered: Contexts,
        *,
        tls: bool,
        certificate: Certificate | None,
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.upper_layer = UpperLayer(self, node.max_pdu, node.request_seconds, node.idle_seconds)
        self.messages = Messages(self, node.max_object_bytes)
        self.acse = _GatedNegotiation(self)
        self.dul = self.upper_layer
        self.dimse = self.messages
        # the upper layer keeps request_seconds itself; this (also the ARTIM timer) only backs it up
        self.acse_timeout = node.request_seconds + 2 * LINGER_SECONDS
        self.network_timeout = node.idle_seconds
        self.dimse_timeout = node.idle_seconds
        self._admission = admission
        self._hooks = hooks
        self._offered = offered
        self._tls = tls
        self._certificate = certificate
        self._admitted: PeerSettings | None = None
        self._number = next(_numbers)
        self._is_refused = False
        self._began = time.monotonic()
        self._stored = self._failed = self._data_set_bytes = 0

    @property
    def accepted_identifiers(self) -> frozenset[int]:
        """The IDs of the accepted presentation contexts."""
        return frozenset(self._accepted_cx)

    @property
    def peer_address(self) -> str:
        """The IP address of the peer, an IPv4 address also where it came over an IPv6 socket."""
        return str(self.requestor.address).removeprefix("::ffff:")

    def refuse(self, rule: str, advice: str) -> None:
        """Report, once per association, that this node turned the peer away."""
        if self._is_refused:
            return
        self._is_refused = True
        calling = escape_ae_title(self.upper_layer.claimed_titles[1])
        self._hooks.tell_refused(
            Refusal(
                rule=rule,
                advice=advice,
                address=self.peer_address,
                ae_title=calling or None,
                certificate=self._certificate.sha256 if self._certificate else None,
            )
        )

    def failed(self, exception: str) -> None:
        """Report the class name of an exception that nobody expected."""
        self._hooks.failed(exception)

    def admit(self, request: A_ASSOCIATE) -> Rejection | None:
        """Take a slot and offer the peer what it may use, or return why not."""
        called, calling = self.upper_layer.claimed_titles
        context_name = str(request.application_context_name)
        decision = self._admission.admit(
            Claim(called, calling, context_name, self.peer_address, self._tls, self._certificate)
        )
        if isinstance(decision, Rejection):
            self.refuse(decision.rule, decision.advice)
            return decision
        self._admitted = decision
        wanted = {str(context.abstract_syntax) for context in request.presentation_context_definition_list}
        may_store = "store" in decision.may
        if wanted & self._offered.sop_classes and not may_store:
            self.refuse("store_not_permitted", "Add `store` to `may` of this peer.")
        self.acceptor.supported_contexts = self._offered.supported("echo" in decision.may, may_store)
        self._hooks.tell_observer(AssociationEvent("began", self._identity(decision), self._number))
        return None

    def _identity(self, peer: PeerSettings) -> PeerIdentity:
        return PeerIdentity(peer.ae_title, self._certificate.sha256 if self._certificate else None, self.peer_address)

    def run_reactor(self) -> None:
        """Run from negotiation to the end, and give the slot back whatever happens."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - boundary of a thread; only the class name may leave it
            self.failed(type(error).__name__)
        finally:
            self.upper_layer.kill_dul()
            if self._admitted is not None:
                self._admission.release(self._admitted)
                self._hooks.tell_observer(
                    AssociationEvent(
                        "ended",
                        self._identity(self._admitted),
                        self._number,
                        "released" if self.is_released else "aborted" if self.is_aborted else "closed",
                        self._stored,
                        self._failed,
                        self._data_set_bytes,
                        time.monotonic() - self._began,
                    )
                )

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Answer one message; then, not before, the next is read and the idle time begins."""
        try:
            if msg.command.is_answered:
                status = self._status_of(msg)
                self.messages.respond(context_id, command_set.response(msg.command, status))
        finally:
            self.upper_layer.restart_idle_timer()
            self.messages.done()

    def _status_of(self, message: Message) -> int:
        """Return the status of the response (PS3.7 Annex C)."""
        command = message.command.ushort(Tag.COMMAND_FIELD)
        abstract_syntax = str(self._accepted_cx[message.context_id].abstract_syntax)
        if command == Command.C_STORE:
            status = self._store(message, abstract_syntax)
            self._stored += status == statuses.SUCCESS
            self._failed += status != statuses.SUCCESS
            return status
        if command == Command.C_ECHO:
            agree = message.command.uid(Tag.AFFECTED_SOP_CLASS_UID) == abstract_syntax == VERIFICATION
            return statuses.SUCCESS if agree else statuses.SOP_CLASS_NOT_SUPPORTED
        known = command in Command.__members__.values()
        return statuses.SOP_CLASS_NOT_SUPPORTED if known else statuses.UNRECOGNIZED_OPERATION

    def _store(self, message: Message, abstract_syntax: str) -> int:
        """Hand one data set over and return the C-STORE status (PS3.4 Table B.2-1)."""
        assert self._admitted is not None  # noqa: S101 (nobody stores before admission; says so to mypy)
        peer = self._identity(self._admitted)
        try:
            self._hooks.receive(self._store_request(message, peer, abstract_syntax), message.data_set)
        except RadnodeError as error:
            self._hooks.tell_declined(peer, message.command.uid(Tag.AFFECTED_SOP_INSTANCE_UID), error)
            return error.status
        except Exception as error:  # noqa: BLE001 - boundary to the node; its text may hold patient data
            self.failed(type(error).__name__)
            return statuses.PROCESSING_FAILURE
        self._data_set_bytes += len(message.data_set)
        return statuses.SUCCESS

    def _store_request(self, message: Message, peer: PeerIdentity, abstract_syntax: str) -> StoreRequest:
        """Return what a C-STORE asks for.

        Raises:
            InputError: it asks for nothing that can be kept.
        """
        sop_class_uid = message.command.uid(Tag.AFFECTED_SOP_CLASS_UID)
        sop_instance_uid = message.command.uid(Tag.AFFECTED_SOP_INSTANCE_UID)
        if sop_class_uid != abstract_syntax or abstract_syntax == VERIFICATION:
            raise ContextMismatch("The SOP class of the command is not that of its presentation context.")
        if sop_instance_uid is None:
            raise InvalidUID("The command names no SOP Instance UID that is one.")
        if message.too_large:
            raise ObjectTooLarge("The object is larger than node.max_object_bytes.")
        if not message.data_set:
            raise MalformedDataSet("There is no data set.")
        return StoreRequest(
            peer=peer,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            context_sop_class_uid=abstract_syntax,
            transfer_syntax_uid=str(self._accepted_cx[message.context_id].transfer_syntax[0]),
        )
