"""TLS of both sides: profile PS3.15 B.12 (BCP 195), TLS 1.2 and 1.3, AEAD suites with forward secrecy only."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
import ssl
from typing import TYPE_CHECKING, Any

from cryptography import x509

from radnode.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from radnode.settings import Settings

# RFC 9325 section 4.2; the TLS 1.3 suites are all acceptable and are not named here
CIPHERS = ":".join(
    f"ECDHE-{signature}-AES{bits}-GCM-SHA{digest}"
    for bits, digest in ((256, 384), (128, 256))
    for signature in ("ECDSA", "RSA")
)

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

# X509_V_ERR_* of OpenSSL's x509_vfy.h, as far as they have an advice of their own
_CRL_UNUSABLE = ("tls_crl_unusable", "tls.crl must hold a valid list of the authority that signed the certificate.")
_VERIFY_RULES = {
    3: _CRL_UNUSABLE,  # no list of this authority
    8: _CRL_UNUSABLE,  # its signature does not verify
    9: ("tls_certificate_not_yet_valid", "Check the clocks of both machines, then the peer's certificate."),
    10: ("tls_certificate_expired", "Renew the peer's certificate."),
    11: ("tls_crl_not_yet_valid", "Check the clock of this node, then the revocation list in tls.crl."),
    12: ("tls_crl_expired", "Put the authority's newest revocation list where tls.crl says; nobody is let in without."),
    23: ("tls_certificate_revoked", "The certificate is on the revocation list; give the peer a new one."),
    26: ("tls_certificate_purpose", "The peer's certificate lacks the extended key usage clientAuth."),
}
_UNKNOWN_AUTHORITY = ("tls_unknown_authority", "Sign the peer's certificate with the authority named in tls.ca.")
_VERSIONS = frozenset({"UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "UNKNOWN_PROTOCOL", "BAD_PROTOCOL_VERSION_NUMBER"})


def server_context(settings: Settings) -> ssl.SSLContext:
    """Return the context of the listener; the client certificate is checked against `tls.ca` and `tls.crl`.

    Raises:
        ConfigError: a file is missing or unreadable, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _prepare(context, settings)
    context.verify_mode = ssl.CERT_REQUIRED if settings.tls.require_client_certificate else ssl.CERT_OPTIONAL
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0  # associations are long; a resumed session would skip the certificate check
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """Return the context for destinations: the same certificate, key, authority and revocation list.

    The chain to `tls.ca` always verifies. The host is checked by `matches_host` after the handshake and not
    by OpenSSL, because hospital certificates without any subject alternative name are common and Python's
    own check would turn all of them away.

    Raises:
        ConfigError: a file is missing or unreadable, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _prepare(context, settings)
    return context


def _prepare(context: ssl.SSLContext, settings: Settings) -> None:
    """Set versions, suites, own certificate, authority and revocation list."""
    tls = settings.tls
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(CIPHERS)
    certificate, key = settings.path(tls.certificate), settings.path(tls.key)
    for path in (certificate, key, settings.path(tls.ca), *([settings.path(tls.crl)] if tls.crl else [])):
        check_readable(path)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError(f"{certificate} and {key} are not a PEM certificate and its unencrypted key.") from error
    try:
        context.load_verify_locations(settings.path(tls.ca))
    except ssl.SSLError as error:
        raise ConfigError(f"{settings.path(tls.ca)} holds no PEM certificate of an authority.") from error
    if tls.crl is not None:
        try:
            context.load_verify_locations(settings.path(tls.crl))
        except ssl.SSLError as error:
            raise ConfigError(f"{settings.path(tls.crl)} is not a PEM revocation list.") from error
        revocation_list_end(settings.path(tls.crl))  # OpenSSL would also take a certificate here
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _no_password() -> bytes:
    """Keep OpenSSL from asking for a password on the terminal."""
    return b""


def check_readable(path: Path) -> None:
    """Raise ConfigError in words of one's own where OpenSSL would say `[Errno 2]`."""
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}; `radnode init` makes a test PKI.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}.") from error


def certificate_sha256(der: bytes) -> str:
    """Return the SHA-256 fingerprint of a DER certificate as 64 lower-case hex digits."""
    return hashlib.sha256(der).hexdigest()


def certificate_expiry(path: Path) -> datetime.datetime:
    """Return when the first certificate of a PEM file expires (UTC, aware).

    Raises:
        ConfigError: the file is missing, unreadable or no PEM certificate.
    """
    check_readable(path)
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError as error:
        raise ConfigError(f"{path} is not a PEM certificate.") from error


def revocation_list_end(path: Path) -> datetime.datetime | None:
    """Return when the first list of a PEM file that ends (RFC 5280 section 5.1.2.5) does (UTC); None when none does.

    Raises:
        ConfigError: the file is missing, unreadable or holds no PEM revocation list.
    """
    check_readable(path)
    try:
        lists = [x509.load_pem_x509_crl(block) for block in _CRL.findall(path.read_bytes())]
    except ValueError as error:
        raise ConfigError(f"{path} is not a PEM revocation list.") from error
    if not lists:
        raise ConfigError(f"{path} is not a PEM revocation list.")
    return min((found.next_update_utc for found in lists if found.next_update_utc is not None), default=None)


def handshake_refusal(error: ssl.SSLError) -> tuple[str, str]:
    """Return (rule, advice) for a handshake that failed on the listener's side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_RULES.get(error.verify_code, _UNKNOWN_AUTHORITY)
    reason: str = getattr(error, "reason", None) or ""  # absent where Python raises it, not OpenSSL
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "tls_no_client_certificate", "Configure a client certificate on the peer."
    if reason in _VERSIONS:
        return "tls_version", "Enable TLS 1.2 or 1.3 on the peer."
    if reason == "NO_SHARED_CIPHER":
        return "tls_no_shared_cipher", "Enable an ECDHE AES-GCM suite on the peer."
    if "ALERT" in reason:
        return "tls_peer_alert", "The peer broke off the handshake; check that it trusts the authority of this node."
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "tls_closed_by_peer", "The peer closed the connection during the handshake."
    return "tls_malformed", "The peer does not speak TLS correctly; check what is connected there."


def subject_alternative_names(certificate: dict[str, Any]) -> frozenset[str]:
    """Return the DNS, IP and URI names (lower case) of a certificate as `SSLSocket.getpeercert()` gives it."""
    names: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())
    return frozenset(_canonical(value) for kind, value in names if kind in ("DNS", "IP Address", "URI"))


def matches_host(certificate: dict[str, Any], host: str) -> bool:
    """Say whether the certificate may stand for `host`; one without any alternative name stands for all.

    RFC 9525 section 6.3: an exact name or address, or a wildcard that is the whole leftmost label.
    """
    names = subject_alternative_names(certificate)
    wanted = _canonical(host)
    return not names or wanted in names or "*." + wanted.partition(".")[2] in names


def _canonical(name: str) -> str:
    """Return an IP address in its shortest form, any other name in lower case."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().removesuffix(".")
