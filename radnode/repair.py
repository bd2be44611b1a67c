"""What a crash left behind, put right: leases of dead processes, room of objects that no row names, their sockets.

The supervisor does it at its start, before any role runs, and after each death of a role's process. The trail is mended
by the sequencer, which alone may write it; here is only counted what it has to do (docs/life-of-an-image.md, row 16).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from radnode.audit import files
from radnode.audit.log import count_entries
from radnode.failpoints import reach
from radnode.jobs.database import reading
from radnode.node import Node


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was put right, in numbers.

    Attributes:
        leases: jobs that dead processes held, ready again.
        stretches: room given back in the object store: objects that were not whole or that no row names.
        sockets: sockets on which a dead process slept.
        entries: audit entries that are in the database and that the sequencer will append to the trail.
        torn_bytes: of a last line of the trail that is not whole, which the sequencer will cut off.
    """

    leases: int = 0
    stretches: int = 0
    sockets: int = 0
    entries: int = 0
    torn_bytes: int = 0


def at_start(node: Node, roles: Iterable[str]) -> Repaired:
    """Put right what all processes of these roles left; they are dead, and their successors do not run yet.

    Raises:
        StoreUnavailable: database or disk cannot be used now; nothing is half done, and once more is no error.
    """
    leases = sockets = 0
    for role in roles:
        leases += node.queue.recover(role)
        sockets += _unlink(node, f"{role}-*.sock")
    reach("start-repairing")
    stretches = node.sweep()
    whole, torn = files.end_of_trail(node.audit_folder)
    with reading(node.engine) as tx:
        entries = count_entries(tx) - whole
    return Repaired(leases, stretches, sockets, max(entries, 0), torn)


def after_death(node: Node, role: str, pid: int) -> Repaired:
    """Put right what one process left, and touch nothing of those that live; raises as `at_start`."""
    sockets = _unlink(node, f"{role}-{pid}-*.sock")
    stretches = node.sweep()
    return Repaired(leases=node.queue.release(f"{role}:{pid}"), stretches=stretches, sockets=sockets)


def _unlink(node: Node, pattern: str) -> int:
    found = list((node.settings.data_dir / "run").glob(pattern))
    for socket in found:
        socket.unlink(missing_ok=True)  # who rang for it may have been quicker
    return len(found)
