"""Arrivals without the bytes they came with."""

from __future__ import annotations

import secrets
from dataclasses import fields

from sqlalchemy import select

from radnode.arrivals import Arrival
from radnode.audit import events
from radnode.audit.events import Actor, AuditRecord
from radnode.jobs.index import InstanceRow
from radnode.jobs.schema import jobs
from radnode.model import JobKind, NewJob
from support.rooms import PEER, Rooms


def arrival(instance: str, *, enqueue: bool = True) -> Arrival:
    """An instance of that pseudonym whose object is said to be kept."""
    values: dict[str, object] = {field.name: field.name * 4 for field in fields(InstanceRow)}
    values |= {"instance": instance, "object_id": secrets.token_bytes(16), "size": 7, "peer": "CT1", "received": 1.5}
    record = AuditRecord(events.IMAGE_RECEIVED, Actor.of_peer(PEER), instance=instance, detail={"bytes": 7})
    return Arrival(InstanceRow(**values), record, (NewJob(JobKind.ANALYSE, instance),) if enqueue else ())


def queued(rooms: Rooms) -> list[str]:
    """The subjects of the jobs, in their order."""
    with rooms.engine.connect() as connection:
        return list(connection.scalars(select(jobs.c.subject).order_by(jobs.c.job)))
