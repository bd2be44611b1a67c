"""Changes of the configuration and of the certificate files, each in the trail once (110113/110129).

The supervisor looks at its start, so that what was changed while the node was down is told of; each listener looks when
it has read the files again. Who is first tells (`radnode.audit.states`).
"""

from __future__ import annotations

from collections.abc import Iterator

from radnode.audit import events
from radnode.audit.events import AuditOutcome, AuditRecord
from radnode.audit.states import changed
from radnode.errors import ConfigError
from radnode.jobs.database import transaction
from radnode.node import Node
from radnode.pki import fingerprint

FILES = ("certificate", "key", "ca", "crl")


def note(node: Node, unusable: ConfigError | None = None) -> list[str]:
    """Tell the trail which sections of the configuration and which files of `[tls]` changed; return their names.

    `unusable` is why the files cannot be used, where they cannot. A key of the node makes the digests, so that the
    database does not give away what they stand for.

    Raises:
        StorageError, AuditError: it cannot be told now; the next look tells of it.
    """
    certificates = dict(_certificates(node))
    states = dict(_sections(node)) | {name: node.pseudonyms.content(data) for name, data in certificates.items()}
    with transaction(node.engine) as tx:
        names = changed(tx, states)
        for name in names:
            detail: dict[str, str | int] = {"setting": name}
            if name in certificates:
                detail |= _fingerprint(node, name)
                if unusable is not None:
                    detail["change"] = "unusable"
            outcome = AuditOutcome.SERIOUS if "change" in detail else None
            record = AuditRecord(events.CONFIG_CHANGED, node.actor(), outcome=outcome, detail=detail)
            node.audit.record(tx, record)
    return names


def _sections(node: Node) -> Iterator[tuple[str, str]]:
    """Yield each section of the configuration in force, overrides included, and its digest."""
    for name in type(node.settings).model_fields:
        text = node.settings.model_dump_json(include={name})
        yield name, node.pseudonyms.content(text.encode())


def _certificates(node: Node) -> Iterator[tuple[str, bytes]]:
    """Yield each file that `[tls]` names and what is in it; one that is not there is empty."""
    for name in FILES:
        path = getattr(node.settings.tls, name)
        if path is not None:
            try:
                yield f"tls.{name}", node.settings.path(path).read_bytes()
            except OSError:
                yield f"tls.{name}", b""


def _fingerprint(node: Node, name: str) -> dict[str, str | int]:
    """Return the SHA-256 of a certificate as a detail; nothing of a key, and where the file holds no certificate."""
    if name == "tls.key":
        return {}
    try:
        return {"digest": fingerprint(node.settings.path(getattr(node.settings.tls, name.removeprefix("tls."))))}
    except ConfigError:
        return {}
