"""One accepted association: negotiation through pynetdicom, then C-ECHO and C-STORE without decoding anything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Container
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from radnode.errors import ContextMismatch, InputError, UnknownOperation
from radnode.model import PeerIdentity, Reception, Refusal
from radnode.network import command_set, statuses
from radnode.network.admission import Admission, Admitted, Certificate, Claim, Rejection, escape_ae_title
from radnode.network.bell import Bell
from radnode.network.command_set import Command, CommandSet, Tag
from radnode.network.contexts import VERIFICATION, Contexts
from radnode.network.deadline_socket import LINGER_SECONDS
from radnode.network.fast_lane import FastLane
from radnode.network.hooks import AssociationEvent, Hooks
from radnode.network.messages import Message, Messages
from radnode.network.storage_scp import AcceptedContext, Declined, StorageSCP
from radnode.network.upper_layer import UpperLayer

if TYPE_CHECKING:
    from pynetdicom import AE

    from radnode.settings import NodeSettings, PeerSettings


_numbers = itertools.count(1)


class _GatedNegotiation(ACSE):
    """pynetdicom's negotiation behind our admission."""

    def negotiate_association(self) -> None:
        """Negotiate with an admitted peer; reject any other (PS3.8 section 9.3.4)."""
        primitive = self.requestor.primitive
        if not isinstance(primitive, A_ASSOCIATE):
            self.assoc.refuse("no_association_request", "The peer connected and asked for no association.")
        elif (rejection := self.assoc.admit(primitive)) is None:
            super().negotiate_association()
            self.assoc.report_contexts()
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
        fast_lane: bool,
        tls: bool,
        certificate: Certificate | None,
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        layer = FastLane if fast_lane else UpperLayer
        self.upper_layer = layer(self, node.max_pdu, node.request_seconds, node.idle_seconds)
        self.messages = Messages(self, self.begin_data_set)
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
        self._admitted: Admitted | None = None
        self._number = next(_numbers)
        self._is_refused = False
        self._began = time.monotonic()
        self._storage: StorageSCP | None = None
        self._bell = Bell()
        self._reactor_checkpoint = self._bell  # pynetdicom's reactor waits for it before each of its rounds
        self.dul.to_user_queue = self._bell.queue()
        self.dimse.msg_queue = self._bell.queue()

    @property
    def accepted_identifiers(self) -> Container[int]:
        """The IDs of the accepted presentation contexts."""
        identifiers: Container[int] = self._accepted_cx
        return identifiers

    @cached_property
    def _contexts(self) -> dict[int, AcceptedContext]:
        """The accepted presentation contexts by ID; asked for once there are any."""
        return {
            identifier: AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for identifier, context in self._accepted_cx.items()
        }

    @property
    def peer_address(self) -> str:
        """The IP address of the peer, an IPv4 address also where it came over an IPv6 socket."""
        return str(self.requestor.address).removeprefix("::ffff:")

    def refuse(self, rule: str, advice: str) -> None:
        """Report, once per association, that this node turned the peer away."""
        if not self._is_refused:
            self._is_refused = True
            self._report(rule, advice, is_alert=True)

    def _report(self, rule: str, advice: str, *, is_alert: bool) -> None:
        calling = escape_ae_title(self.upper_layer.claimed_titles[1])
        self._hooks.tell_refused(
            Refusal(
                rule=rule,
                advice=advice,
                address=self.peer_address,
                ae_title=calling or None,
                certificate=self._certificate.sha256 if self._certificate else None,
                is_alert=is_alert,
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
        peer = decision.peer
        self._storage = StorageSCP(self._identity(peer), self._hooks)
        wanted = {str(context.abstract_syntax) for context in request.presentation_context_definition_list}
        may_store = "store" in peer.may
        if wanted & self._offered.sop_classes and not may_store:
            self.refuse("store_not_permitted", "Add `store` to `may` of this peer.")
        self.acceptor.supported_contexts = self._offered.supported("echo" in peer.may, may_store)
        self._hooks.tell_observer(AssociationEvent("began", self._identity(peer), self._number))
        return None

    def report_contexts(self) -> None:
        """Report what the peer proposed and nobody is given here; the results have told the peer."""
        advice = self._offered.not_accepted(self.rejected_contexts)
        if advice is not None:
            self._report("context_not_accepted", advice, is_alert=False)  # a breach later on has its line

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
            self.messages.close()
            if self._admitted is not None and self._storage is not None:
                self._admission.release(self._admitted)
                self._hooks.tell_observer(self._ended(self._admitted.peer, self._storage))

    def _ended(self, peer: PeerSettings, storage: StorageSCP) -> AssociationEvent:
        return AssociationEvent(
            "ended",
            self._identity(peer),
            self._number,
            "released" if self.is_released else "aborted" if self.is_aborted else "closed",
            storage.stored,
            storage.failed,
            storage.data_set_bytes,
            time.monotonic() - self._began,
        )

    def _abort_blocking(self, block: bool = True) -> None:
        """Abort, also while the upper layer waits for the rest of a PDU; every abort of pynetdicom comes by here."""
        self.upper_layer.stop_reading()
        super()._abort_blocking(block)

    def begin_data_set(self, context_id: int, command: CommandSet) -> Reception:
        """Return where the data set of a request goes: none but C-STORE has one that is wanted."""
        if self._storage is None or command.ushort(Tag.COMMAND_FIELD) != Command.C_STORE:
            return Declined(ContextMismatch("This request has no data set."))
        return self._storage.begin(command, self._contexts[context_id])

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Answer one message; then, not before, the next is read and the idle time begins."""
        try:
            if msg.command.is_answered:
                self.messages.respond(context_id, self.answer(msg))
        finally:
            self.upper_layer.restart_idle_timer()
            self.messages.done()

    def answer(self, message: Message) -> bytes:
        """Serve a request and return the encoded command set of its response."""
        return command_set.response(message.command, self._status_of(message))

    def _status_of(self, message: Message) -> int:
        """Return the status of the response (PS3.7 Annex C)."""
        command = message.command.ushort(Tag.COMMAND_FIELD)
        if command == Command.C_STORE and self._storage is not None:
            return self._storage.finish(message.command, message.reception, message.size)
        if command == Command.C_ECHO:
            abstract_syntax = self._contexts[message.context_id].abstract_syntax
            agree = message.command.uid(Tag.AFFECTED_SOP_CLASS_UID) == abstract_syntax == VERIFICATION
            if agree:
                return statuses.SUCCESS
        return self._decline(command)

    def _decline(self, command: int) -> int:
        """Report a request that nobody serves and return its status."""
        error: InputError = ContextMismatch("This presentation context is not for that command.")
        if command not in Command.__members__.values():
            error = UnknownOperation("The peer must send commands that PS3.7 knows.")
        if self._admitted is not None:
            self._hooks.tell_declined(self._identity(self._admitted.peer), None, error)
        return error.status
