"""What the listener tells the node, and what it asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from radnode.errors import RadnodeError
from radnode.model import PeerIdentity, Reception, Refusal, StoreRequest


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
