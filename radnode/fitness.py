"""`radnode check`: whether a node is fit to serve, in plain words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec

from radnode.errors import RadnodeError
from radnode.node import Node
from radnode.settings import DestinationSettings

EXPIRY_DAYS = 30
FREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fit` False makes `radnode check` exit with 1."""

    subject: str
    fit: bool
    text: str


def examine(node: Node) -> Iterator[Finding]:
    """Look at rules, keys, certificates, disk, database, models and destinations, one finding each."""
    yield Finding("config", True, f"read; AE title {node.settings.node.ae_title}, port {node.settings.node.port}")
    yield _try("rules", lambda: _rules(node))
    yield _try("keys", lambda: _keys(node))
    for name in ("certificate", "ca"):
        yield _try(f"tls.{name}", lambda name=name: _certificate(node, name))  # type: ignore[misc]
    yield _try("tls", lambda: _context(node))
    yield _disk(node)
    yield _try("database", lambda: _database(node))
    yield from _models(node)
    for destination in node.settings.destinations:
        yield _try(f"destination {destination.name}", lambda it=destination: _echo(node, it))  # type: ignore[misc]
    if not node.settings.destinations:
        yield Finding("destinations", True, "none: reports stay on this node")


def _try(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, look())
    except RadnodeError as error:
        return Finding(subject, False, str(error))


def _rules(node: Node) -> str:
    _ = node.rules
    return f"{len(node.settings.rules)}, all of them can be used"


def _keys(node: Node) -> str:
    _ = node.audit, node.pseudonyms
    studies = node.study_keys.check()
    node.sequencer()
    wide = [path.name for path in node.key_folder.iterdir() if path.stat().st_mode & 0o077]
    if wide:
        raise RadnodeError(f"{wide[0]} in {node.key_folder} is open to other users; chmod it to 0600.")
    return f"complete, private, in {node.key_folder}; {studies} study keys"


def _certificate(node: Node, name: str) -> str:
    from radnode.network.tls import certificate_expiry  # noqa: PLC0415

    path = node.settings.path(getattr(node.settings.tls, name))
    expiry = certificate_expiry(path)
    days = (expiry - datetime.now(UTC)).days
    if days < 0:
        raise RadnodeError(f"{path} expired on {expiry:%Y-%m-%d}; no peer will accept it: renew it.")
    if days < EXPIRY_DAYS:
        raise RadnodeError(f"{path} expires on {expiry:%Y-%m-%d}, in {days} days: renew it.")
    return f"valid until {expiry:%Y-%m-%d}"


def _context(node: Node) -> str:
    from radnode.network.tls import server_context  # noqa: PLC0415

    server_context(node.settings)
    demanded = "demanded" if node.settings.tls.require_client_certificate else "NOT demanded"
    return f"certificate and key fit; client certificates are {demanded}"


def _disk(node: Node) -> Finding:
    free = shutil.disk_usage(node.settings.data_dir).free
    text = f"{free / 2**30:.1f} GiB free in {node.settings.data_dir}"
    return Finding("disk", free >= FREE_BYTES, text if free >= FREE_BYTES else f"only {text}; make room.")


def _database(node: Node) -> str:
    counts = node.queue.counts()
    jobs = ", ".join(f"{count} {kind.value} {state.value}" for (kind, state), count in sorted(counts.items()))
    return f"opens; jobs: {jobs or 'none yet'}"


def _models(node: Node) -> Iterator[Finding]:
    from radnode.detect.catalogue import active  # noqa: PLC0415
    from radnode.detect.package import load_package, load_trusted  # noqa: PLC0415

    folder = node.settings.path(node.settings.detect.models)
    if find_spec("torch") is None:
        yield Finding("torch", True, "not installed: this machine can run every role but worker")
    for name in dict.fromkeys(name for rule in node.settings.rules for name in rule.detect):

        def look(name: str = name) -> str:
            package = load_package(active(folder, name), load_trusted(folder))
            return f"version {package.identity.version}, signed by {package.key_id}, complete"

        yield _try(f"model {name}", look)


def _echo(node: Node, destination: DestinationSettings) -> str:
    from radnode.network.storage_scu import echo  # noqa: PLC0415
    from radnode.network.tls import client_context  # noqa: PLC0415

    milliseconds = echo(
        destination,
        context=client_context(node.settings) if destination.tls else None,
        calling_ae_title=node.settings.node.ae_title,
        timeout_seconds=node.settings.deliver.timeout_seconds,
    )
    return f"{destination.ae_title}@{destination.host}:{destination.port} answers C-ECHO in {milliseconds:.0f} ms"
