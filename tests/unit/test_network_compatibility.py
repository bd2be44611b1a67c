"""pynetdicom's private parts: the tables name all that is used, and a change is one sentence at the start."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import _config, fsm
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket

from radnode import network
from radnode.errors import ConfigError
from radnode.network import compatibility
from radnode.network.server import Listener
from radnode.settings import Settings


def rooms_own_classes() -> list[type]:
    modules = [
        importlib.import_module(f"{network.__name__}.{found.name}") for found in pkgutil.iter_modules(network.__path__)
    ]
    return [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]


def overridden() -> set[tuple[type, str]]:
    """(class of pynetdicom, name) of each method or property that a class of the room overrides."""
    found = set()
    for kind in rooms_own_classes():
        bases = [base for base in kind.__mro__ if base.__module__.startswith("pynetdicom")]
        for name, value in vars(kind).items():
            owner = next((base for base in bases if name in vars(base)), None)
            if owner is not None and (inspect.isfunction(value) or isinstance(value, property)):
                found.add((owner, name))
    return found


def private_names() -> set[str]:
    """Names with an underscore that the room uses and none of its classes has made."""
    used, own = set(), set()
    for path in Path(*network.__path__).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                (own if of_self and isinstance(node.ctx, ast.Store) else used).add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.ClassDef):
                own |= {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    return used - own


def test_what_is_installed_is_what_the_room_was_written_for():
    assert compatibility.check() == pynetdicom.__version__


def test_every_overridden_method_stands_in_the_tables():
    assert len(overridden()) > 15
    for owner, name in overridden():
        assert name in {*compatibility.METHODS.get(owner, ()), *compatibility.PROPERTIES.get(owner, ())}, (owner, name)


def test_every_private_attribute_stands_in_the_tables():
    named = {name for names in compatibility.ATTRIBUTES.values() for name in names}
    assert private_names()
    assert private_names() - named == set()


@pytest.mark.parametrize(
    ("owner", "name", "value", "part"),
    [
        (DULServiceProvider, "_is_transport_event", None, "DULServiceProvider._is_transport_event has changed"),
        (
            DULServiceProvider,
            "_decode_pdu",
            lambda self, data, more: None,
            "DULServiceProvider._decode_pdu has changed",
        ),
        (Association, "_serve_request", lambda self, msg: None, "Association._serve_request has changed"),
        (ACSE, "send_reject", None, "ACSE.send_reject has changed"),
        (AssociationSocket, "ready", None, "AssociationSocket.ready has changed"),
        (AssociationServer, "active_associations", None, "AssociationServer.active_associations has changed"),
        (_config, "LOG_HANDLER_LEVEL", None, "_config.LOG_HANDLER_LEVEL is gone"),
        (pynetdicom, "__version__", "3.1.0", "it is not of version 3.0"),
    ],
)
def test_changed_part_stops_the_listener_with_a_sentence_before_any_file_is_read(monkeypatch, owner, name, value, part):
    if value is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, value)
    with pytest.raises(ConfigError, match=f"is not one that radnode was made for: {part}; install pynetdicom 3.0"):
        Listener(Settings(data_dir="nowhere"), print, print)


def test_state_machine_that_answers_otherwise_is_said(monkeypatch):
    monkeypatch.setitem(fsm.TRANSITION_TABLE, ("Evt19", "Sta6"), "AA-1")
    with pytest.raises(ConfigError, match="does not answer Evt19 in Sta6 by AA-8"):
        compatibility.check()


def test_attribute_that_is_no_longer_made_is_said(monkeypatch):
    made = DULServiceProvider.__init__

    def without(self, assoc):
        made(self, assoc)
        del self._recv_pdu

    monkeypatch.setattr(DULServiceProvider, "__init__", without)
    with pytest.raises(ConfigError, match=r"DULServiceProvider\._recv_pdu is gone"):
        compatibility.check()
