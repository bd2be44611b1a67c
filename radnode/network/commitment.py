"""Storage Commitment on associations that this node requests (PS3.4 Annex J): answers to peers, questions to a PACS."""

from __future__ import annotations

import contextlib
import ssl
import time
from typing import TYPE_CHECKING

from radnode.commitment_sets import (
    EXPLICIT,
    IMPLICIT,
    MAX_BYTES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    read_report,
    write_report,
    write_request,
)
from radnode.errors import DeliveryError, DestinationUnavailable, InputError, RadnodeError
from radnode.model import CommitmentReport, CommitmentRequest
from radnode.network import statuses, wire
from radnode.network.command_set import (
    MAX_COMMAND_BYTES,
    WITH_DATA_SET,
    Command,
    CommandSet,
    MalformedCommand,
    Tag,
    response,
)
from radnode.network.commitment_scp import REQUEST, event_report
from radnode.network.storage_scu import DestinationAssociation
from radnode.settings import DestinationSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from radnode.settings import PeerSettings

OFFERS = ((STORAGE_COMMITMENT, EXPLICIT), (STORAGE_COMMITMENT, IMPLICIT))
LOOK_SECONDS = 1.0  # how often to look whether a report is still waited for
_NOTHING = (OSError, wire.ProtocolError, MalformedCommand, DeliveryError)  # what an association that breaks raises


class ReportAssociation(DestinationAssociation):
    """An association on which a peer is told what became of its requests; a context manager.

    This node requests it and is the SCP of it, which is negotiated (PS3.7 section D.3.3.4). A peer that accepts the
    SOP Class and leaves the roles out is told all the same: nobody calls a modality with this SOP Class for anything
    else.
    """

    def __init__(
        self, peer: PeerSettings, *, context: ssl.SSLContext | None, calling_ae_title: str, timeout_seconds: float
    ) -> None:
        if peer.commit is None:
            raise ValueError(f"{peer.ae_title} has no address for answers")
        destination = DestinationSettings(
            name="peer", ae_title=peer.ae_title, host=peer.commit.host, port=peer.commit.port, tls=peer.commit.tls
        )
        super().__init__(
            destination,
            context=context,
            calling_ae_title=calling_ae_title,
            offers=OFFERS,
            timeout_seconds=timeout_seconds,
            name=f"the peer {peer.ae_title}",
            scp_of=STORAGE_COMMITMENT,
        )

    def report(self, report: CommitmentReport) -> None:
        """Send one report.

        Raises:
            DestinationUnavailable: the peer did not take it, for whatever reason: it is to be told later.
        """
        context_id, syntax = self._context(OFFERS)
        values = event_report(report) | {Tag.COMMAND_DATA_SET_TYPE: WITH_DATA_SET}
        encoded = write_report(report, syntax)
        status = self._request(Command.N_EVENT_REPORT, context_id, values, [encoded])
        if status != statuses.SUCCESS:
            raise DestinationUnavailable(f"{self._subject} answered {status:04X} to N-EVENT-REPORT.")


class CommittingAssociation(DestinationAssociation):
    """An association that stores objects at a destination and asks it to commit them; this node is the SCU of both."""

    def check_commitment(self) -> None:
        """Return when the destination accepts the SOP Class; DestinationRefused when it does not."""
        self._context(OFFERS)

    def ask(self, request: CommitmentRequest) -> None:
        """Ask, and return once the destination has accepted the request.

        Raises:
            DestinationRefused: it does not accept the SOP Class.
            DestinationUnavailable: it did not accept the request.
        """
        context_id, syntax = self._context(OFFERS)
        values: dict[Tag, int | str] = {
            Tag.REQUESTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
            Tag.REQUESTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_INSTANCE,
            Tag.ACTION_TYPE_ID: REQUEST,
            Tag.COMMAND_DATA_SET_TYPE: WITH_DATA_SET,
        }
        status = self._request(Command.N_ACTION, context_id, values, [write_request(request, syntax)])
        if status != statuses.SUCCESS:
            raise DestinationUnavailable(f"{self._subject} answered {status:04X} to N-ACTION.")

    def await_report(
        self,
        seconds: float,
        take: Callable[[CommitmentReport], object],
        is_settled: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Say whether the destination reports on this association within so many seconds.

        It is waited for no longer once `is_settled`, which is asked every second, says that it has reported elsewhere.
        `take` has kept the report when it is answered 0000; a destination that heard anything else reports again. Where
        the destination says something else, or the association breaks, that is no report: it will be asked again.

        Raises:
            RadnodeError: `take` raised it; the destination was told the status of a failure.
        """
        context_id, syntax = self._context(OFFERS)
        deadline = time.monotonic() + seconds
        try:
            while not self._wire.has_more(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline or is_settled():
                    return False
            command, data_set = self._message(deadline)
            if command.ushort(Tag.COMMAND_FIELD) != Command.N_EVENT_REPORT:
                return False
        except _NOTHING:
            return False
        try:
            take(read_report(data_set, syntax))
        except RadnodeError as error:
            self._answer(context_id, command, statuses.of_commitment(error))
            if isinstance(error, InputError):
                return False
            raise
        self._answer(context_id, command, statuses.SUCCESS)
        return True

    def _answer(self, context_id: int, command: CommandSet, status: int) -> None:
        """Answer a report; a destination that does not hear it reports again."""
        with contextlib.suppress(*_NOTHING):
            for pdu in wire.p_data(context_id, response(command, status), command=True, max_length=self._max_length):
                self._wire.send(pdu)

    def _message(self, deadline: float) -> tuple[CommandSet, bytes]:
        """Return the next message of the destination and its data set; `deadline` (time.monotonic()) is for all of it.

        Raises:
            OSError: the connection broke, or the message was not whole in time.
            ProtocolError, MalformedCommand: it is none, or too long.
            DestinationUnavailable, DestinationRefused: as `_expect`.
        """
        encoded, data_set = bytearray(), bytearray()
        command: CommandSet | None = None
        room = MAX_COMMAND_BYTES + MAX_BYTES
        while room >= 0:
            body = self._expect(wire.P_DATA, deadline)
            room -= len(body)
            for is_command, is_last, fragment in wire.read_values(body):
                if is_command:
                    encoded += fragment
                    command = CommandSet.parse(bytes(encoded)) if is_last else None
                else:
                    data_set += fragment
                if is_last and command is not None and is_command != command.has_data_set:
                    return command, bytes(data_set)
        raise wire.ProtocolError("an endless message")
