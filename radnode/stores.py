"""What a commit touches: the database with its queue, the sealed objects, the audit trail, and how all of them name
patients. Made once by the composition root and handed to whoever commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from radnode.audit.log import AuditLog
from radnode.jobs.queue import Queue
from radnode.storage.pseudonyms import Pseudonyms
from radnode.storage.vault import Vault


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one node; `wake(role)` tells a role that there may be work, `clock` gives epoch seconds."""

    engine: Engine
    queue: Queue
    vault: Vault
    audit: AuditLog
    pseudonyms: Pseudonyms
    wake: Callable[[str], None]
    clock: Callable[[], float] = time.time
