"""The listener that the node starts and drains: one TLS port, and a plain port where the configuration asks for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pynetdicom import AE, _config

from radnode.errors import ConfigError, RadnodeError
from radnode.listening import Endpoints, Load, unusable
from radnode.model import PeerIdentity, Reception, Refusal, StoreRequest
from radnode.network import compatibility
from radnode.network.admission import Admission
from radnode.network.contexts import Contexts
from radnode.network.hooks import AssociationEvent, CommitmentHooks, Hooks
from radnode.network.renewal import ServerContexts
from radnode.network.slots import Slots
from radnode.network.transport import AssociationListener

if TYPE_CHECKING:
    from radnode.settings import Settings

ABORT_SECONDS = 2.0  # how long aborted associations are given to end
_POLL_SECONDS = 0.1


def silence_pynetdicom() -> None:
    """Keep pynetdicom from logging at all: its messages quote titles, UIDs, identifiers and exceptions."""
    _config.LOG_HANDLER_LEVEL = "none"
    logger = logging.getLogger("pynetdicom")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False


def _ignore(*_: object) -> None:
    """Do nothing about an event."""


class Listener:
    """The Storage and Verification SCP of one process.

    `receive` begins the reception of a data set, which is given exactly as it comes (no File Meta Information);
    its `finish` returns for status 0000 or raises a RadnodeError, whose `status` is sent; after any other exception
    the status is 0110 and `failed` is told the class name, nothing else. `declined` is told of every object that gets
    a status of failure for a RadnodeError, `refused` of each connection or association that is turned away, once each.
    All are called from many threads at once. `analysable` are the SOP classes that a detector accepts, see
    `Contexts`; `renewed` is told when certificate files that changed were read (None) or cannot be, see
    `ServerContexts`. `commitment` serves Storage Commitment, which is not offered without it. Without `endpoints` and
    `slots` the listener has ports and limits of its own; with them it shares both with other processes and is number
    `number` of them.

    Raises:
        ConfigError: a certificate, key, address or presentation context cannot be used, a port is taken, or
            pynetdicom is another than this room was written for.
    """

    def __init__(
        self,
        settings: Settings,
        receive: Callable[[StoreRequest], Reception],
        refused: Callable[[Refusal], None],
        observe: Callable[[AssociationEvent], None] = _ignore,
        failed: Callable[[str], None] = _ignore,
        declined: Callable[[PeerIdentity, str | None, RadnodeError], None] = _ignore,
        analysable: Collection[str] | None = None,
        renewed: Callable[[ConfigError | None], None] = _ignore,
        *,
        commitment: CommitmentHooks | None = None,
        endpoints: Endpoints | None = None,
        number: int = 0,
        slots: Slots | None = None,
    ) -> None:
        compatibility.check()
        silence_pynetdicom()
        self._node = settings.node
        hooks = Hooks(receive, refused, observe, failed, declined, commitment)
        offered = Contexts(settings.network, analysable)
        self._ae = AE(ae_title=settings.node.ae_title)
        self._ae.maximum_pdu_size = settings.node.max_pdu
        self._ae.network_timeout = settings.node.idle_seconds
        self._ae.maximum_associations = 2**31  # admission counts; pynetdicom would count half-dead ones too
        self._listeners: list[AssociationListener] = []
        contexts = ServerContexts(settings, renewed)
        self._endpoints = endpoints or Endpoints.bind(settings.node)
        self._load = Load(self._endpoints.memory, number)
        self._admission = Admission(settings, slots, self._load)
        try:
            for bound, tls in zip(self._endpoints.sockets, (contexts, None), strict=False):
                listener = AssociationListener(
                    *(self._ae, bound, self._node, self._admission, hooks, offered),
                    load=self._load,
                    fast_lane=settings.network.fast_lane,
                    tls=tls,
                )
                self._listeners.append(listener)
        except OSError as error:
            self._endpoints.close()
            raise unusable(settings.node, bound.getsockname()[1], error) from error
        self._threads: list[threading.Thread] = []

    @property
    def bound_port(self) -> int:
        """The TLS port that is listened on, also when the settings say 0."""
        return int(self._listeners[0].server_address[1])

    @property
    def bound_plain_port(self) -> int | None:
        """The plain port, or None when there is none."""
        return int(self._listeners[1].server_address[1]) if len(self._listeners) > 1 else None

    @property
    def running(self) -> int:
        """The number of associations that hold a slot."""
        return self._admission.running

    def start(self) -> None:
        """Begin to accept; returns at once."""
        for listener in self._listeners:
            thread = threading.Thread(
                target=listener.serve_forever, args=(_POLL_SECONDS,), name="radnode-accept", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        self._load.listen(is_listening=True)

    def drain(self, deadline_seconds: float) -> None:
        """Stop accepting, let associations finish, and abort those that run after `deadline_seconds`.

        An object whose `receive` runs at the deadline is kept or not as `receive` decides; its peer sees an
        A-ABORT in place of a status and will send it again.
        """
        self._load.listen(is_listening=False)
        for listener in self._listeners:
            listener.shutdown()
        for thread in self._threads:
            thread.join()
        for listener in self._listeners:
            listener.server_close()
            listener.end_waiting()
        self._endpoints.close()
        self._wait_until_idle(deadline_seconds)
        associations = [running for listener in self._listeners for running in listener.active_associations]
        for association in associations:
            association.abort(block=False)
        self._wait_until_idle(ABORT_SECONDS)

    def _wait_until_idle(self, seconds: float) -> None:
        """Return when no association holds a slot, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(0.01)
