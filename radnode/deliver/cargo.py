"""Cargo: what a delivery brings, and how its log and its trail speak of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import Event
from radnode.jobs.index import get_instance, get_result, get_secondary
from radnode.model import JobKind
from radnode.part10 import FileMeta, read_file_meta
from radnode.stores import Stores


@dataclass(frozen=True, slots=True)
class Words:
    """The events of the log, and those of the trail, for one kind of cargo.

    `is_own` of what this node made: one UID always has the same bytes then.
    """

    delivered: str
    sent: str
    held: str
    refused: str
    delivery: Event
    sending: Event  # taken by a destination that is still to commit it
    is_own: bool


WORDS = {
    JobKind.DELIVER: Words(
        "report_delivered",
        "report_sent",
        "report_held_already",
        "report_refused",
        events.REPORT_DELIVERED,
        events.REPORT_SENT,
        is_own=True,
    ),
    JobKind.FORWARD: Words(
        "image_forwarded",
        "image_sent",
        "image_held_already",
        "forward_refused",
        events.IMAGE_FORWARDED,
        events.IMAGE_SENT,
        is_own=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a delivery is about, in pseudonyms, and the sealed object that it brings; `names` are those of the log."""

    object_id: bytes
    patient: str
    study: str
    instance: str
    model: str | None = None
    names: dict[str, str] = field(default_factory=dict)


def subject_of(tx: Connection, kind: JobKind, subject: str) -> Subject:
    """Look up what a delivery is about.

    Raises:
        NotFoundError: it is not kept here.
    """
    if kind is JobKind.FORWARD:
        image = get_instance(tx, subject)
        return Subject(image.object_id, image.patient, image.study, image.instance)
    result, _, secondary = subject.partition(".")
    found = get_result(tx, result)
    object_id, names = found.report_id, {"result": result}
    if secondary:
        object_id, names = get_secondary(tx, subject).object_id, {**names, "object": secondary}
    return Subject(object_id, found.patient, found.study, found.instance, found.model, names)


def opened(stores: Stores, object_id: bytes) -> tuple[FileMeta, Iterable[bytes]]:
    """Return the file meta of an object and its plaintext in chunks, all of which were authenticated just now.

    A large object is opened twice, so that damage is found before a destination has half of it, and none is in memory
    as a whole.

    Raises:
        NotFoundError: no such object.
        SealBroken: it was changed.
        MalformedDataSet: it is no DICOM file.
        KeyUnavailable: the key provider is down.
    """
    chunks = stores.vault.open(object_id)
    first = next(chunks)
    meta = read_file_meta(first)
    if next(chunks, None) is None:
        return meta, [first]
    deque(chunks, maxlen=0)
    return meta, stores.vault.open(object_id)
