"""`radnode check`: whether a node is fit to serve, in plain words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from radnode.audit.anchors import Anchor
from radnode.errors import AuditError, ConfigError, RadnodeError
from radnode.jobs.database import reading
from radnode.jobs.destinations import out_of_reach, waiting
from radnode.jobs.holds import held
from radnode.model import JobState
from radnode.node import Node
from radnode.pki import fingerprint
from radnode.repository import Repository, backlog
from radnode.settings import DestinationSettings, SyslogSettings
from radnode.storage.key_copy import known_copies
from radnode.trail import anchors_of

EXPIRY_DAYS = 30
LATE_SECONDS = 300.0  # after which an entry that the audit repository has not taken makes the node unfit
FREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fit` False makes `radnode check` exit with 1."""

    subject: str
    fit: bool
    text: str


def examine(node: Node) -> Iterator[Finding]:
    """Look at rules, contexts, keys, certificates, peers, disk, database, models and destinations, one finding each."""
    yield Finding("config", True, f"read; AE title {node.settings.node.ae_title}, port {node.settings.node.port}")
    if not node.settings.data_dir.is_dir():
        text = f"there is no folder {node.settings.data_dir}; correct `data_dir`, or make a node with `radnode init`."
        yield Finding("data_dir", False, text)
        return
    yield _try("rules", lambda: _rules(node))
    yield _try("network", lambda: _network(node))
    yield _try("pynetdicom", _pynetdicom)
    yield _try("keys", lambda: _keys(node))
    tls = list(_tls(node))
    yield from tls
    yield _try("peers", lambda: _peers(node))
    yield _try("disk", lambda: _disk(node))
    database = _try("database", lambda: _database(node))
    yield database
    if database.fit:
        yield _try("jobs", lambda: _jobs(node))
        yield _try("holds", lambda: _holds(node))
        yield _try("key copies", lambda: _key_copies(node))
    for anchor in anchors_of(node):
        yield _try(f"anchor {anchor.name}", lambda anchor=anchor: _anchor(anchor))  # type: ignore[misc]
    syslog = node.settings.audit.syslog
    if syslog is not None:
        yield _try("audit repository", lambda: _repository(node, syslog))
    yield from _models(node)
    for destination in node.settings.destinations:
        yield _destination(node, destination, tls[-1], is_open=database.fit)
    if not node.settings.destinations:
        yield Finding("destinations", True, "none: reports stay on this node")
    if database.fit:
        yield from _unaddressed(node)


def _try(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, look())
    except RadnodeError as error:
        return Finding(subject, False, str(error))
    except OSError as error:
        return Finding(subject, False, f"{error.filename or 'a file'} cannot be read: {error.strerror}.")


def _rules(node: Node) -> str:
    _ = node.rules
    text = f"{len(node.settings.rules)}, all of them can be used"
    return text if node.rules.detectors else f"{text}; none of them names a detector: no image is analysed"


def _network(node: Node) -> str:
    from radnode.network.contexts import Contexts  # noqa: PLC0415

    offered = Contexts(node.settings.network, node.analysable())
    return f"{len(offered.sop_classes)} SOP classes in {len(offered.transfer_syntaxes)} transfer syntaxes are accepted"


def _pynetdicom() -> str:
    from radnode.network import compatibility  # noqa: PLC0415

    return f"{compatibility.check()}, as it should be"


def _keys(node: Node) -> str:
    _ = node.audit, node.pseudonyms
    studies = node.study_keys.check()
    node.sequencer()
    for path in sorted(node.key_folder.iterdir()):
        _check_private(path)
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


def _tls(node: Node) -> Iterator[Finding]:
    """Look at certificate, authority and key; the last finding says whether they can be used together."""
    files = [_try(f"tls.{name}", lambda name=name: _certificate(node, name)) for name in ("certificate", "ca")]  # type: ignore[misc]
    files.append(_try("tls.key", lambda: _key(node)))
    if node.settings.tls.crl is not None:
        files.append(_try("tls.crl", lambda: _revocation_list(node)))
    yield from files
    together = _try("tls", lambda: _context(node))
    said = not together.fit and any(together.text == finding.text for finding in files)
    yield Finding("tls", False, "not tried: see above") if said else together


def _revocation_list(node: Node) -> str:
    from radnode.network.tls import revocation_list_end  # noqa: PLC0415

    path = node.settings.path(node.settings.tls.crl or Path())
    end = revocation_list_end(path)
    if end is None:
        return "valid without end"
    if end < datetime.now(UTC):
        raise RadnodeError(f"{path} expired at {end:%Y-%m-%d %H:%M}Z; no peer is let in: fetch the newest.")
    return f"valid until {end:%Y-%m-%d %H:%M}Z"


def _key(node: Node) -> str:
    from radnode.network.tls import check_readable  # noqa: PLC0415

    path = node.settings.path(node.settings.tls.key)
    check_readable(path)
    _check_private(path)
    return "private"


def _check_private(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise RadnodeError(f"{path.name} in {path.parent} is open to other users; chmod it to 0600.")


def _context(node: Node) -> str:
    from radnode.network.tls import server_context  # noqa: PLC0415

    server_context(node.settings)
    demanded = "demanded" if node.settings.tls.require_client_certificate else "NOT demanded"
    return f"certificate and key fit; client certificates are {demanded}"


def _peers(node: Node) -> str:
    settings = node.settings
    lets_in_unbound = settings.node.plain_port or not settings.tls.require_client_certificate
    problems = []
    for peer in settings.peers:
        if peer.certificate_sha256 is None and peer.san is None and not lets_in_unbound:
            problems.append(f"the peer {peer.ae_title} can never connect; set its certificate_sha256 or san")
        if peer.ae_title == settings.node.ae_title and peer.certificate_sha256 is not None:
            own = _own_fingerprint(node)
            if own not in (None, peer.certificate_sha256):
                problems.append(
                    f"the peer {peer.ae_title} is bound to another certificate; set its certificate_sha256 to {own}"
                )
    if problems:
        raise RadnodeError(f"{'; '.join(problems)}.")
    asking = [peer.ae_title for peer in settings.peers if "commit" in peer.may and peer.commit is None]
    text = f"{len(settings.peers)} may connect"
    if asking:
        text += f"; without `commit`, storage commitments are answered only where they are asked: {', '.join(asking)}"
    return text


def _own_fingerprint(node: Node) -> str | None:
    """Return the fingerprint of this node's certificate; None where `tls.certificate` says why there is none."""
    try:
        return fingerprint(node.settings.path(node.settings.tls.certificate))
    except ConfigError:
        return None


def _disk(node: Node) -> str:
    free = shutil.disk_usage(node.settings.data_dir).free
    text = f"{free / 2**30:.1f} GiB free in {node.settings.data_dir}"
    if free < FREE_BYTES:
        raise RadnodeError(f"only {text}; make room.")
    return text


def _database(node: Node) -> str:
    _ = node.engine
    return f"opens, {node.database_path}"


def _repository(node: Node, settings: SyslogSettings) -> str:
    behind = backlog(node)
    waiting = f"{behind.depth} entries wait for it, the oldest for {behind.seconds / 60:.0f} minutes"
    try:
        Repository(node, settings).connect().close()
    except AuditError as error:
        raise RadnodeError(f"{str(error).removesuffix('.')}; {waiting}.") from error
    if behind.seconds > LATE_SECONDS:
        raise RadnodeError(f"{settings.host}:{settings.port} takes connections, but {waiting}; does the node run?")
    return f"{settings.host}:{settings.port} takes connections; {waiting if behind.depth else 'it has every entry'}"


def _anchor(anchor: Anchor) -> str:
    newest = anchor.look()
    return "no checkpoint yet" if newest is None else f"newest checkpoint of {newest:%Y-%m-%d %H:%M}Z"


def _jobs(node: Node) -> str:
    counts = node.queue.counts()
    dead = sum(count for (_, state), count in counts.items() if state is JobState.DEAD)
    if dead:
        raise RadnodeError(f"{dead} dead letter{'s' if dead > 1 else ''}; see `radnode jobs list`.")
    return ", ".join(f"{count} {kind.value} {state.value}" for (kind, state), count in sorted(counts.items())) or "none"


def _holds(node: Node) -> str:
    """What is held is never forgotten: it makes the node unfit, whoever held it."""
    found = [
        f"{what.text} since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%MZ}"
        for what, since in held(node.engine).items()
    ]
    if found:
        raise RadnodeError(f"{'; '.join(found)}.")
    return "none: images are accepted, analysed and delivered"


def _key_copies(node: Node) -> str:
    with reading(node.engine) as tx:
        copies = known_copies(tx)
    stale = [str(path) for path, is_current in copies.items() if not is_current]
    if stale:
        raise RadnodeError(f"{', '.join(stale)} is behind: bring it back and run `radnode purge`, which renews it.")
    return f"{len(copies)}, up to date" if copies else "none: `radnode backup` makes one"


def _models(node: Node) -> Iterator[Finding]:
    from radnode.detect.package import load_package, load_trusted  # noqa: PLC0415

    if find_spec("torch") is None:
        yield Finding("torch", True, "not installed: this machine can run every role but worker")
    for name in dict.fromkeys(name for rule in node.settings.rules for name in rule.detect):

        def look(name: str = name) -> str:
            catalogue = node.catalogue()
            package = load_package(catalogue.active(name), load_trusted(catalogue.folder))
            return f"version {package.identity.version}, signed by {package.key_id}, complete"

        yield _try(f"model {name}", look)


def _destination(node: Node, destination: DestinationSettings, tls: Finding, *, is_open: bool) -> Finding:
    subject = f"destination {destination.name}"
    if destination.tls and not tls.fit:
        found = Finding(subject, False, "not tried: this node's TLS files cannot be used.")
    else:
        found = _try(subject, lambda: _echo(node, destination))
    if not any(destination.name in (*rule.deliver, *rule.forward) for rule in node.settings.rules):
        return replace(found, text=f"{found.text.rstrip('.')}; no rule delivers to it")
    queued = _try(subject, lambda: _queued(node, destination.name)) if is_open else None
    return replace(found, text=f"{found.text.rstrip('.')}; {queued.text}") if queued and queued.text else found


def _queued(node: Node, name: str) -> str:
    """Say what waits for a destination, and since when deliveries found it out of reach; nothing where all is well."""
    with reading(node.engine) as tx:
        gone, (count, oldest) = out_of_reach(tx).get(name), waiting(tx, name)
    said = []
    if oldest is not None:
        minutes = (node.stores.clock() - oldest) / 60
        said.append(f"{count} {'wait' if count > 1 else 'waits'} for it, the oldest for {minutes:.0f} minutes")
    if gone is not None:
        said.append(f"out of reach for deliveries since {datetime.fromtimestamp(gone.since, UTC):%Y-%m-%d %H:%MZ}")
    return "; ".join(said)


def _unaddressed(node: Node) -> Iterator[Finding]:
    """Say what waits for whom the configuration does not name: it would wait for ever."""
    try:
        found = node.unaddressed()
    except RadnodeError as error:
        yield Finding("destinations", False, str(error))
        return
    for lost in found:
        minutes = (node.stores.clock() - lost.oldest) / 60
        what = f"{lost.count} {'wait' if lost.count > 1 else 'waits'} for it, the oldest for {minutes:.0f} minutes"
        subject = f"{'peer' if lost.is_peer else 'destination'} {lost.name}"
        yield Finding(subject, False, f"{what}, and the configuration does not name it. {lost.advice}")


def _echo(node: Node, destination: DestinationSettings) -> str:
    from radnode.network.storage_scu import echo  # noqa: PLC0415
    from radnode.network.tls import client_context  # noqa: PLC0415

    milliseconds = echo(
        destination,
        context=client_context(node.settings) if destination.tls else None,
        calling_ae_title=node.settings.node.ae_title,
        timeout_seconds=node.settings.deliver.timeout_seconds,
    )
    text = f"{destination.ae_title}@{destination.host}:{destination.port} answers C-ECHO in {milliseconds:.0f} ms"
    return f"{text}, {_committing(node, destination)}" if destination.commitment else text


def _committing(node: Node, destination: DestinationSettings) -> str:
    """Say that a destination takes storage commitments, and that what it reports can reach this node."""
    with node.connect(destination, []) as association:
        association.check_commitment()
    if all(peer.ae_title != destination.ae_title for peer in node.settings.peers):
        raise RadnodeError(
            f"the destination {destination.name} cannot report storage commitments on associations of its own: add "
            f"{destination.ae_title} to [[peers]] with its certificate."
        )
    return "and takes storage commitments"
