"""Whether the caller may use a command, and the trail's entry where they may not, or break the glass."""

from __future__ import annotations

import contextlib
from pathlib import Path

from radnode.access import READING, Caller, caller, task_of, tasks
from radnode.audit import events
from radnode.audit.events import Actor
from radnode.errors import ConfigError, RadnodeError, RefusedError
from radnode.node import Node


def admit(node: Node, command: str, *, break_glass: bool = False, held: tuple[Path, bytes] | None = None) -> Actor:
    """See that the caller may use a command, and return who that is.

    `held` are a certificate file and its key (PEM): the caller is the holder then. In an emergency, reading needs no
    role, and is an alert of the trail.

    Raises:
        RefusedError: they may not; the refusal is audited.
        ConfigError: a reason is needed and was not given; or certificate and key cannot be used.
    """
    task, who = task_of(command), caller()
    if task is None:
        return Actor(user=who.user)
    if held is not None:
        who = _holder(node, command, who, *held)
    actor = Actor(user=who.user, certificate=who.certificate)
    may = task in tasks(who, node.settings.access, node.settings.data_dir)
    if node.reason is None and (node.settings.access.require_reason or break_glass):
        raise ConfigError(f"`radnode {command}` needs a reason here: --reason TEXT.")
    if not may and break_glass and task in READING:
        node.record(events.GLASS_BROKEN, actor, command=command)
    elif not may:
        _tell_refused(node, actor, command)
        name = who.user if who.certificate is None else "The holder of this certificate"
        raise RefusedError(f"{name} has no role to {task.value}; ask an administrator to change [access].")
    return actor


def _holder(node: Node, command: str, who: Caller, certificate: Path, key: bytes) -> Caller:
    """Return a caller as the holder of a certificate; raises as `admit`."""
    from radnode.network.possession import prove  # noqa: PLC0415 (few commands need anything of the network)

    try:
        found = prove(node.settings, certificate, key)
    except RefusedError:
        _tell_refused(node, Actor(user=who.user), command)
        raise
    return who.holding(found.sha256, found.names)


def _tell_refused(node: Node, actor: Actor, command: str) -> None:
    with contextlib.suppress(RadnodeError):  # refused it is, whether or not it can be written down
        if node.database_path.exists():  # a restore must find none
            node.record(events.ACCESS_REFUSED, actor, command=command)
            node.settle_trail()
