"""The fast lane's decision whether to wait for the peer."""

from __future__ import annotations

from collections import deque
from typing import Any

from pynetdicom import AE

from radnode.network.association import AcceptedAssociation
from radnode.network.messages import Message
from radnode.settings import NodeSettings


def test_lane_does_not_wait_for_the_peer_while_a_response_is_there_to_be_sent() -> None:
    nothing: Any = None
    association = AcceptedAssociation(
        AE(), NodeSettings(), nothing, nothing, nothing, fast_lane=True, tls=False, certificate=None
    )
    lane, messages = association.upper_layer, association.messages
    lane.state_machine.current_state = "Sta6"

    class Crossed(deque[Any]):
        """The queue of what is to be sent, in which the response lands behind the back of who looks."""

        def __bool__(self) -> bool:
            seen = len(self) > 0
            if messages.busy:
                messages.respond(1, b"")
                messages.done()
            return seen

    lane.to_provider_queue.queue = Crossed()
    messages.hand_over(Message(1, nothing, None, 0))
    assert not lane._may_wait()
    messages.respond(1, b"")
    messages.done()
    assert not lane._may_wait()
