"""Storage Commitment on associations that this node requests (PS3.4 Annex J): the answer to a peer."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from radnode.commitment_sets import EXPLICIT, IMPLICIT, STORAGE_COMMITMENT, write_report
from radnode.errors import DestinationUnavailable
from radnode.model import CommitmentReport
from radnode.network import statuses
from radnode.network.command_set import WITH_DATA_SET, Command, Tag
from radnode.network.commitment_scp import event_report
from radnode.network.storage_scu import DestinationAssociation
from radnode.settings import DestinationSettings

if TYPE_CHECKING:
    from radnode.settings import PeerSettings

OFFERS = ((STORAGE_COMMITMENT, EXPLICIT), (STORAGE_COMMITMENT, IMPLICIT))


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
        encoded = memoryview(write_report(report, syntax))
        status = self._request(Command.N_EVENT_REPORT, context_id, values, encoded)
        if status != statuses.SUCCESS:
            raise DestinationUnavailable(f"{self._subject} answered {status:04X} to N-EVENT-REPORT.")
