"""The life of key-encryption keys: listed, rotated and retired while the node runs, under audit.

Rotation wraps the study keys anew, never an object: seconds, whatever the node holds. It works in batches, each one
commit, and a rotation that was cut short is finished by the next. Every study key opens at every moment: under the old
key before its batch, under the new one after.
"""

from __future__ import annotations

from dataclasses import dataclass

from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.errors import NotFoundError, RadnodeError, SealBroken
from radnode.failpoints import reach
from radnode.jobs.database import forget_overwritten, reading, transaction
from radnode.storage.keys import KeyProvider, StudyKeys, retire, retired, usage
from radnode.stores import Stores

BATCH = 50  # study keys a commit


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key-encryption key: its state (current, in use, unused, retired) and how many study keys it wraps."""

    key: str
    state: str
    study_keys: int


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: which key is current, whether it is new, and how many study keys were wrapped under it."""

    key: str
    is_new: bool
    wrapped: int


class Keyring:
    """The key-encryption keys of one node."""

    def __init__(self, stores: Stores, provider: KeyProvider, study_keys: StudyKeys) -> None:
        self._stores = stores
        self._provider = provider
        self._study_keys = study_keys

    def listing(self) -> list[KeyRow]:
        """Return the keys that the provider knows or that wrap something, oldest first.

        Raises:
            KeyUnavailable: the provider does not answer.
        """
        known, (used, gone) = self._provider.keys(), self._in_database()
        names = [name for name in [*sorted(used), *sorted(gone)] if name not in known]
        return [
            KeyRow(name, _state(name, known[-1], used, gone), used.get(name, 0))
            for name in dict.fromkeys([*names, *known])
        ]

    def rotate(self, actor: Actor, *, always_new: bool = False) -> Rotation:
        """Make a new key where the provider can, and wrap every study key under the one that is current then.

        Where study keys are left under an older key, that rotation is finished and no new key is made, unless it is
        `always_new`.

        Raises:
            KeyUnavailable: the provider does not answer; what was wrapped anew stays so.
            SealBroken: study keys do not open; all others were wrapped anew.
        """
        current = self._provider.keys()[-1]
        used, _ = self._in_database()
        fresh = self._provider.create() if always_new or set(used) <= {current} else None
        current = fresh or current
        self._record(actor, change="rotated" if fresh else "rewrapping", key=current)
        reach("rotation-begun")
        wrapped, damaged, last = 0, 0, b""
        while True:
            batch = self._study_keys.rewrap(current, BATCH, last)
            wrapped, damaged, last = wrapped + batch.wrapped, damaged + batch.damaged, batch.last
            reach("keys-rewrapped")
            if not last:
                break
        forget_overwritten(self._stores.engine)
        self._record(actor, change="rewrapped", key=current, count=wrapped)
        if damaged:
            raise SealBroken(f"{damaged} study keys do not open and stand where they were; restore them from a backup.")
        return Rotation(current, fresh is not None, wrapped)

    def retire(self, kek_id: str, actor: Actor) -> bool:
        """Destroy a key under which nothing is wrapped; True when it is gone, False when the operator has to remove it.

        From the commit on nothing can be wrapped under it; then it is destroyed. Once more finishes what was cut short.

        Raises:
            NotFoundError: there is no such key.
            RadnodeError: it is current, or study keys are wrapped under it.
            KeyUnavailable: the provider does not answer, or does not allow it.
        """
        known, (used, gone) = self._provider.keys(), self._in_database()
        if kek_id not in known and kek_id not in used and kek_id not in gone and ":" not in kek_id:
            raise NotFoundError(f"There is no key {kek_id}; `radnode keys list` shows which there are.")
        if kek_id == known[-1]:
            raise RadnodeError(f"{kek_id} is the current key; `radnode keys rotate` makes another one current.")
        with transaction(self._stores.engine) as tx:
            wrapped = usage(tx).get(kek_id, 0)
            if wrapped:
                raise RadnodeError(f"{wrapped} study keys are wrapped under {kek_id}; run `radnode keys rotate` first.")
            retire(tx, kek_id, self._stores.clock())
            detail: dict[str, str | int] = {"change": "retired", "key": kek_id}
            self._stores.audit.record(tx, AuditRecord(events.KEY_CHANGED, actor, detail=detail))
        forget_overwritten(self._stores.engine)
        reach("key-retired")
        return self._provider.destroy(kek_id)

    def _in_database(self) -> tuple[dict[str, int], frozenset[str]]:
        """Return how many study keys each key wraps, and which keys are retired."""
        with reading(self._stores.engine) as tx:
            return usage(tx), retired(tx)

    def _record(self, actor: Actor, **detail: str | int) -> None:
        with transaction(self._stores.engine) as tx:
            self._stores.audit.record(tx, AuditRecord(events.KEY_CHANGED, actor, detail=detail))


def _state(name: str, current: str, used: dict[str, int], gone: frozenset[str]) -> str:
    if name == current:
        return "current"
    if name in used:
        return "in use"
    return "retired" if name in gone else "unused"
