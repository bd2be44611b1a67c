"""Who may associate: AE titles, the certificate a title is bound to, addresses, and the limits on associations."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from dataclasses import dataclass

from radnode.errors import ConfigError
from radnode.listening import Load
from radnode.network.slots import Slots
from radnode.network.tls import certificate_sha256, subject_alternative_names
from radnode.settings import PeerSettings, Settings

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"  # PS3.7 Annex A.2.1


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that verified: SHA-256 (hex, lower case) and subject alternative names."""

    sha256: str
    names: frozenset[str]

    @classmethod
    def of(cls, connection: object) -> Certificate | None:
        """Return the client certificate of a TLS connection; None without TLS or without a certificate."""
        der = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
        if der is None or not isinstance(connection, ssl.SSLSocket):
            return None
        return cls(certificate_sha256(der), subject_alternative_names(connection.getpeercert() or {}))


@dataclass(frozen=True, slots=True)
class Claim:
    """What an A-ASSOCIATE-RQ claims, with titles as the 16 bytes they came in, and where it came from."""

    called_ae_title: bytes
    calling_ae_title: bytes
    application_context_name: str
    address: str
    tls: bool
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 Table 9-21) with the rule that asked for it."""

    result: int
    source: int
    reason: int
    rule: str
    advice: str


def escape_ae_title(raw: bytes) -> str:
    """Return a title as printable ASCII on one line; everything else becomes a backslash escape."""
    return raw.strip(b" ").decode("latin-1").encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A peer that was let in, and the slots that its association holds until it is released."""

    peer: PeerSettings
    slots: tuple[int, int]


class Admission:
    """Decides on every association request of this process; the limits hold over all that share its slots."""

    def __init__(self, settings: Settings, slots: Slots | None = None, load: Load | None = None) -> None:
        self._node = settings.node
        self._peers = {peer.ae_title: peer for peer in settings.peers}
        self._networks = {peer.ae_title: _networks(peer) for peer in settings.peers}
        self._asked = frozenset(item.ae_title for item in settings.destinations if item.commitment)
        self._slots = slots or Slots()
        self._load = load or Load()
        self._lock = threading.Lock()
        self._running = 0

    def admit(self, claim: Claim) -> Admitted | Rejection:
        """Return the peer, whose slots are now taken until `release`, or why it is turned away.

        An unknown caller learns nothing but that: the calling title is looked at before the called one.
        """
        if claim.application_context_name != APPLICATION_CONTEXT_NAME:
            return Rejection(
                1, 1, 2, "application_context_unknown", "The peer must name the DICOM application context."
            )
        peer = self._peers.get(_text(claim.calling_ae_title))
        if peer is None:
            return _caller("calling_ae_title_unknown", "List the calling AE title in [[peers]].")
        if _text(claim.called_ae_title) != self._node.ae_title:
            return Rejection(1, 1, 7, "called_ae_title_unknown", f"Configure the peer to call {self._node.ae_title}.")
        networks = self._networks[peer.ae_title]
        if networks and not _is_in(claim.address, networks):
            return _caller("address_not_allowed", "List the address in `addresses` of this peer, or correct the peer.")
        return self._check_certificate(peer, claim) or self._take_slots(peer)

    def is_asked(self, peer: PeerSettings) -> bool:
        """Say whether a peer is a destination that this node asks for storage commitment."""
        return peer.ae_title in self._asked

    def release(self, admitted: Admitted) -> None:
        """Give the slots back."""
        for slot in admitted.slots:
            self._slots.give_back(slot)
        self._count(-1)

    @property
    def running(self) -> int:
        """Return how many associations of this process hold slots."""
        with self._lock:
            return self._running

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change
        self._load.add(change)

    def _check_certificate(self, peer: PeerSettings, claim: Claim) -> Rejection | None:
        """Hold a title to its certificate.

        Without TLS a title that is bound to a certificate is accepted only from the addresses listed for it.
        """
        bound = peer.certificate_sha256 is not None or peer.san is not None
        if not claim.tls:
            if bound and not peer.addresses:
                return _caller("calling_ae_title_needs_tls", "Connect over TLS, or list `addresses` of this peer.")
            return None
        if claim.certificate is None:
            return _caller("certificate_missing", "Configure a client certificate on the peer.") if bound else None
        if not bound:
            return _caller("calling_ae_title_unbound", "Set `certificate_sha256` or `san` of this peer.")
        if peer.certificate_sha256 not in (None, claim.certificate.sha256):
            return _caller("certificate_of_another", "The certificate is not the one registered for this AE title.")
        if peer.san is not None and peer.san.lower() not in claim.certificate.names:
            return _caller("certificate_of_another", "The certificate does not carry the `san` of this AE title.")
        return None

    def _take_slots(self, peer: PeerSettings) -> Admitted | Rejection:
        """Count the association in, or reject it as transient: local limit exceeded."""
        of_peer = self._slots.take(peer.ae_title, self._node.max_associations_per_peer)
        if of_peer is None:
            return Rejection(2, 3, 2, "too_many_associations_of_peer", "Raise node.max_associations_per_peer, or wait.")
        of_all = self._slots.take(None, self._node.max_associations)
        if of_all is None:
            self._slots.give_back(of_peer)
            return Rejection(2, 3, 2, "too_many_associations", "Raise node.max_associations, or wait.")
        self._count(1)
        return Admitted(peer, (of_peer, of_all))


def _caller(rule: str, advice: str) -> Rejection:
    """Return the rejection "calling AE title not recognized", which tells a stranger least."""
    return Rejection(1, 1, 3, rule, advice)


def _text(raw: bytes) -> str:
    """Return a title for comparison; what is not ASCII equals no configured title."""
    return raw.strip(b" ").decode("ascii", errors="replace")


def _networks(peer: PeerSettings) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return the addresses (or networks in CIDR notation) of a peer."""
    try:
        return tuple(ipaddress.ip_network(address, strict=False) for address in peer.addresses)
    except ValueError as error:
        raise ConfigError(f"`addresses` of the peer {peer.ae_title} must be IP addresses or networks.") from error


def _is_in(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    """Say whether an IP address lies in one of the networks."""
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks if parsed.version == network.version)
