"""Whether the installed pynetdicom is the one that this room was written for.

The listener overrides methods of pynetdicom and uses attributes that its documentation does not promise. A version that
has changed them would fail in the middle of an association, or worse, serve without the deadlines that the overriding
methods keep. So it is looked at before a port is opened; `tests/unit/test_network_compatibility.py` holds the tables
here to what the room does use.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pynetdicom
from pynetdicom import _config, fsm
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler, ThreadedAssociationServer

from radnode.errors import ConfigError

MADE_FOR = "3.0"  # setup.cfg holds pynetdicom to this minor version

# Methods that are overridden or called, with the names of their parameters after self
METHODS: Mapping[type, Mapping[str, tuple[str, ...]]] = {
    ACSE: {"negotiate_association": (), "send_reject": ("result", "source", "diagnostic")},
    Association: {
        "__init__": ("ae", "mode"),
        "run_reactor": (),
        "_serve_request": ("msg", "context_id"),
        "set_socket": ("socket",),
        "abort": ("block",),
        "_abort_blocking": ("block",),
        "kill": (),
    },
    DIMSEServiceProvider: {"__init__": ("assoc",), "receive_primitive": ("primitive",)},
    DULServiceProvider: {
        "__init__": ("assoc",),
        "run_reactor": (),
        "kill_dul": (),
        "send_pdu": ("primitive",),
        "idle_timer_expired": (),
        "_send": ("pdu",),
        "_is_transport_event": (),
        "_process_recv_primitive": (),
        "_read_pdu_data": (),
        "_decode_pdu": ("bytestream",),
    },
    AssociationSocket: {
        "__init__": ("assoc", "client_socket", "address"),
        "send": ("bytestream",),
        "close": (),
        "_shutdown_socket": (),
    },
    RequestHandler: {"_create_association": ()},
    AssociationServer: {
        "__init__": (
            *("ae", "address", "ae_title", "contexts"),
            *("ssl_context", "evt_handlers", "request_handler"),
        ),
        "server_bind": (),
        "shutdown": (),
        "server_close": (),
    },
    ThreadedAssociationServer: {"process_request_thread": ("request", "client_address")},
}
PROPERTIES: Mapping[type, tuple[str, ...]] = {
    AssociationSocket: ("ready",),
    RequestHandler: ("local", "remote"),
    AssociationServer: ("active_associations",),
}
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "AE": ("_servers", "maximum_associations"),
    "Association": ("_accepted_cx", "_server", "acse", "dimse", "dul", "is_aborted", "is_released"),
    "DULServiceProvider": (
        *("_idle_timer", "_kill_thread", "_recv_pdu", "artim_timer", "event_queue"),
        *("socket", "state_machine", "to_provider_queue", "to_user_queue"),
    ),
    "DIMSEServiceProvider": ("msg_queue",),
    "AssociationSocket": ("_is_connected", "event_queue", "socket"),
    "StateMachine": ("current_state",),
    "A_ABORT_RQ": ("source", "reason_diagnostic"),
    "P_DATA_TF": ("presentation_data_value_items",),
    "_config": ("LOG_HANDLER_LEVEL",),
}
# PS3.8 Table 9-10, as far as the overriding methods count on it
TRANSITIONS: Mapping[tuple[str, str], str] = {
    ("Evt5", "Sta1"): "AE-5",
    ("Evt6", "Sta2"): "AE-6",
    ("Evt19", "Sta2"): "AA-1",
    ("Evt10", "Sta2"): "AA-1",
    ("Evt12", "Sta2"): "AA-1",
    ("Evt17", "Sta2"): "AA-5",
    ("Evt6", "Sta6"): "AA-8",
    ("Evt10", "Sta6"): "DT-2",
    ("Evt12", "Sta6"): "AR-2",
    ("Evt16", "Sta6"): "AA-3",
    ("Evt17", "Sta6"): "AA-4",
    ("Evt19", "Sta6"): "AA-8",
    ("Evt19", "Sta13"): "AA-7",
}


def check() -> str:
    """Return the version of pynetdicom when this room can work with it.

    Raises:
        ConfigError: it is of another minor version, or the first of its parts that has changed.
    """
    version: str = pynetdicom.__version__
    changed = next(_changed(version), None)
    if changed is not None:
        raise ConfigError(
            f"pynetdicom {version} is not one that radnode was made for: {changed}; "
            f"install pynetdicom {MADE_FOR}, as requirements.lock has it."
        )
    return version


def _changed(version: str) -> Iterator[str]:
    """Yield what is not as expected."""
    if not version.startswith(f"{MADE_FOR}."):
        yield f"it is not of version {MADE_FOR}"
    for owner, methods in METHODS.items():
        for name, parameters in methods.items():
            method = getattr(owner, name, None)
            if method is None or tuple(inspect.signature(method).parameters)[1:] != parameters:
                yield f"{owner.__name__}.{name} has changed"
    for owner, names in PROPERTIES.items():
        for name in names:
            if not isinstance(getattr(owner, name, None), property):
                yield f"{owner.__name__}.{name} has changed"
    for kind, made in _made():
        for name in ATTRIBUTES[kind]:
            if not hasattr(made, name):
                yield f"{kind}.{name} is gone"
    for (event, state), action in TRANSITIONS.items():
        if fsm.TRANSITION_TABLE.get((event, state)) != action:
            yield f"its state machine does not answer {event} in {state} by {action}"


def _made() -> Iterator[tuple[str, Any]]:
    """Yield one of each object whose attributes are used, by name; none of them opens or starts anything."""
    yield "_config", _config
    ae = pynetdicom.AE()
    association = Association(ae, MODE_ACCEPTOR)
    with socket.socket() as unconnected:
        connection = AssociationSocket(association, client_socket=unconnected)
    yield "AE", ae
    yield "Association", association
    yield "DULServiceProvider", association.dul
    yield "DIMSEServiceProvider", association.dimse
    yield "AssociationSocket", connection
    yield "StateMachine", association.dul.state_machine
    yield "A_ABORT_RQ", A_ABORT_RQ()
    yield "P_DATA_TF", P_DATA_TF()
