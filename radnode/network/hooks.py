"""What the listener tells the node, and what it asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from radnode.errors import RadnodeError
from radnode.model import CommitmentReport, CommitmentRequest, PeerIdentity, Reception, Refusal, StoreRequest


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


class ReportChannel(Protocol):
    """The association on which a peer asked for a storage commitment, as the way to answer it."""

    def is_open(self) -> bool:
        """Say whether the peer still waits."""

    def report(self, report: CommitmentReport) -> None:
        """Send one report and return once the peer has taken it; PeerMovedOn when it went on or away first."""


@dataclass(frozen=True, slots=True)
class CommitmentHooks:
    """What the node does about Storage Commitment (PS3.4 Annex J).

    `requested` keeps a request: it is durable when it returns, and the status is 0000. `report` is then called, after
    the response, with the way to answer on the same association. `reported` takes what a destination says of the
    objects that this node sent to it. The first and the last raise a RadnodeError where they do not; `declined` is told
    of it, of what cannot be read, and (UnknownOperation) of what is not served, with the status that was sent.
    """

    requested: Callable[[PeerIdentity, CommitmentRequest], None]
    report: Callable[[PeerIdentity, ReportChannel], None]
    reported: Callable[[PeerIdentity, CommitmentReport], None]
    declined: Callable[[PeerIdentity, RadnodeError, int], None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the node does about what happens here.

    `receive` begins the reception of one data set, whose bytes are then handed over exactly as they come; its
    `finish` returns for status 0000 or raises a RadnodeError, whose `status` is sent. `declined` is told of each
    such error, and of those that this room finds before `receive` is asked, with the SOP Instance UID of the
    command where it has one. `failed` is given the class name of any other exception and nothing else of it. All
    are called from many threads at once.
    """

    receive: Callable[[StoreRequest], Reception]
    refused: Callable[[Refusal], None]
    observe: Callable[[AssociationEvent], None]
    failed: Callable[[str], None]
    declined: Callable[[PeerIdentity, str | None, RadnodeError], None]
    commitment: CommitmentHooks | None = None  # None: the SOP Class is not offered

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
