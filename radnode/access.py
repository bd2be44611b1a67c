"""Who may do what with the node's own commands: roles bound to users and groups of this machine, or to certificates.

Who proves to hold a certificate (`--with-certificate`) has the roles bound to it alone, whoever runs the process.
Else the person is who logged in (the kernel's login uid, which survives sudo and su), else who the process runs as;
never what the environment says. These roles guard the commands, not the files: who can read the data folder and its
keys needs no command. So the folder is its owner's alone, and others come as that user, by sudo.
"""

from __future__ import annotations

import enum
import grp
import os
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from radnode.settings import AccessSettings

_NOBODY_LOGGED_IN = 2**32 - 1  # proc(5), /proc/pid/loginuid


class Task(enum.StrEnum):
    """What a role is needed for."""

    READ_RESULTS = "read results"
    READ_TRAIL = "read the audit trail"
    OPERATE = "look at or change jobs"
    ADMINISTER = "administer keys, models, purges and backups"


READING: Final = frozenset({Task.READ_RESULTS, Task.READ_TRAIL})  # what may be done in an emergency without a role
ROLES: Final[Mapping[str, frozenset[Task]]] = {
    "administrators": frozenset(Task),
    "operators": frozenset({Task.OPERATE}),
    "readers": frozenset({Task.READ_RESULTS, Task.OPERATE}),
    "auditors": frozenset({Task.READ_TRAIL}),
}
_TASKS: Final[Mapping[str, Task | None]] = {  # of a command, else of its group; all others need no role
    "results": Task.READ_RESULTS,
    "jobs": Task.OPERATE,
    "audit": Task.READ_TRAIL,
    "audit verify": None,  # says whether the trail holds, and nothing of what is in it
    "keys": Task.ADMINISTER,
    "purge": Task.ADMINISTER,
    "backup": Task.ADMINISTER,
    "restore": Task.ADMINISTER,
    "models": Task.ADMINISTER,
    "models list": None,
    "models verify": None,
    "models drift": None,  # counts alone
    "models sign": None,  # needs no node
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who runs this process: the person, their groups, and the user number that the process has.

    `certificate` is the SHA-256 (hex) of the one that they have proven to hold, `names` how a role may name it.
    """

    user: str
    groups: frozenset[str]
    person: int
    uid: int
    certificate: str | None = None
    names: frozenset[str] = frozenset()

    def holding(self, sha256: str, names: Iterable[str]) -> Caller:
        """Return this caller as the holder of a certificate with these alternative names (lower case)."""
        bound = frozenset({f"sha256:{sha256}", *(f"san:{name}" for name in names)})
        return replace(self, certificate=sha256, names=bound)


def task_of(command: str) -> Task | None:
    """Return what a command, such as `results show`, needs a role for; None: nothing."""
    return _TASKS[command] if command in _TASKS else _TASKS.get(command.partition(" ")[0])


def caller() -> Caller:
    """Return who runs this process."""
    uid = os.getuid()
    person = _login_uid(uid)
    try:
        entry = pwd.getpwuid(person)
    except KeyError:  # as in many containers
        return Caller(f"uid {person}", frozenset(), person, uid)
    found = {grp.getgrgid(number).gr_name for number in os.getgrouplist(entry.pw_name, entry.pw_gid) if _known(number)}
    return Caller(entry.pw_name, frozenset(found), person, uid)


def tasks(who: Caller, settings: AccessSettings, data_dir: Path) -> frozenset[Task]:
    """Return what somebody may do.

    A person who is named in a role, or whose group is, may do what these roles say. Anybody else may do everything
    when they run as the owner of the data folder or as root, unless `access.owner_is_administrator` is false.
    """
    named = [role for role in ROLES if _names(who, getattr(settings, role))]
    if named:
        return frozenset().union(*(ROLES[role] for role in named))
    if who.certificate is not None:
        return frozenset()
    owner = data_dir.stat().st_uid if data_dir.exists() else None
    return ROLES["administrators"] if settings.owner_is_administrator and who.uid in (0, owner) else frozenset()


def _names(who: Caller, members: Iterable[str]) -> bool:
    if who.certificate is not None:
        return not who.names.isdisjoint(members)
    return any(member == who.user or (member[:1] == "@" and member[1:] in who.groups) for member in members)


def _login_uid(uid: int) -> int:
    try:
        number = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return uid
    return uid if number == _NOBODY_LOGGED_IN else number


def _known(number: int) -> bool:
    try:
        grp.getgrgid(number)
    except KeyError:
        return False
    return True
