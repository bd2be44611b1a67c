"""Restoring a node from a backup and a key copy: nothing is said to be well that was not opened and verified.

What was purged after the backup was made has no key in the key copy: its rows are taken out again, so that the restored
node keeps what the other one promised to have destroyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from radnode.audit import events
from radnode.audit import verify as verifier
from radnode.audit.events import Actor, AuditRecord
from radnode.backup import copy_back, read_manifest
from radnode.errors import RadnodeError
from radnode.jobs.database import reading, transaction
from radnode.jobs.index import every_object
from radnode.jobs.purge import doomed, remove_study, spare
from radnode.jobs.schema import instances
from radnode.node import Node
from radnode.storage.key_copy import read_copy, take_in, write_copy
from radnode.storage.keys import study_keys


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there again: objects that were opened, audit entries; and studies that were purged since the backup."""

    objects: int
    entries: int
    purged: int


def restore(node: Node, backup: Path, keys: Path, actor: Actor) -> Restored:
    """Restore a node that has its configuration and its key folder, and neither database nor objects nor trail.

    Raises:
        RadnodeError: the backup or the key copy cannot be used, an object does not open, or the trail does not verify;
            the sentence says which.
        KeyUnavailable: the provider does not answer, or lacks a key-encryption key.
    """
    manifest, (written, rows) = read_manifest(backup), read_copy(keys)
    if written < manifest.made:
        raise RadnodeError(f"The key copy {keys} is older than the backup; take the newest one.")
    copy_back(backup, node.settings.data_dir)
    with transaction(node.engine) as tx:
        take_in(tx, rows)
        purged = _purge_again(node, tx, actor)
    node.study_keys.check()
    opened = _open_all(node)
    found = verifier.verify(node.audit_folder, node.key_folder / "audit-sign.pub", node.database_path)
    if not found.ok:
        raise RadnodeError(f"The restored trail does not verify: {found.problem}")
    with transaction(node.engine) as tx:
        write_copy(tx, keys.resolve(), node.stores.clock())
        detail: dict[str, str | int] = {"command": "restore", "count": opened}
        node.audit.record(tx, AuditRecord(events.COMMAND_USED, actor, detail=detail))
    node.settle_trail()
    return Restored(opened, found.entries + found.pending, purged)


def _purge_again(node: Node, tx: Connection, actor: Actor) -> int:
    """Take out the studies that have no key any more; return how many."""
    gone = select(instances.c.study).where(instances.c.study.not_in(select(study_keys.c.study))).distinct()
    studies = list(tx.scalars(gone))
    for study in studies:
        removed = remove_study(tx, study)
        detail: dict[str, str | int] = {"count": removed.instances, "reason": "restore"}
        for patient in removed.patients:
            record = AuditRecord(events.STUDY_PURGED, actor, patient=patient, study=study, detail=detail)
            node.audit.record(tx, record)
    for object_id in doomed(tx, -1):
        node.vault.remove(object_id)
        spare(tx, [object_id])
    return len(studies)


def _open_all(node: Node) -> int:
    """Open every object that the database names, to the last byte; return how many."""
    with reading(node.engine) as tx:
        named = every_object(tx)
    broken = 0
    for object_id in named:
        try:
            for _chunk in node.vault.open(object_id):
                pass
        except RadnodeError:
            broken += 1
    if broken:
        raise RadnodeError(f"{broken} of {len(named)} restored objects do not open; is this the right key folder?")
    return len(named)
