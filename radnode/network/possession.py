"""Whether somebody on this machine holds a certificate: a TLS handshake with the listener's context, in memory.

So it is checked as that of a peer: the chain to `tls.ca`, its time, `tls.crl`, its purpose, and that the key is there.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path

from radnode.errors import ConfigError, RefusedError
from radnode.network.admission import Certificate
from radnode.network.tls import certificate_sha256, check_readable, handshake_refusal, server_context
from radnode.settings import Settings

_FLIGHTS = 8  # more than a handshake has in either direction


def prove(settings: Settings, certificate: Path, key: bytes) -> Certificate:
    """Return the certificate of a PEM file whose unencrypted key (PEM) is `key`; its names include e-mail addresses.

    Raises:
        ConfigError: certificate and key cannot be read, or do not belong together; or those of the node cannot.
        RefusedError: a peer with this certificate would be turned away.
    """
    check_readable(certificate)
    server, client = server_context(settings), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_REQUIRED
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE  # it is this process that it talks to
    _load(client, certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    holder = client.wrap_bio(to_client, to_server)
    node = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_FLIGHTS):
            for side in (holder, node):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLError as error:
        raise RefusedError(f"The certificate {certificate} is not accepted: {handshake_refusal(error)[1]}") from error
    der, found = node.getpeercert(binary_form=True), node.getpeercert()
    if der is None or found is None:
        raise RefusedError(f"The certificate {certificate} is not accepted: the handshake did not end.")
    alternatives: tuple[tuple[str, str], ...] = found.get("subjectAltName", ())  # type: ignore[assignment]
    names = frozenset(value.lower() for _kind, value in alternatives if isinstance(value, str))
    return Certificate(certificate_sha256(der), names)


def _load(context: ssl.SSLContext, certificate: Path, key: bytes) -> None:
    """Load certificate and key; the key, which OpenSSL takes from files alone, stays in memory."""
    memory = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(memory, key)
        context.load_cert_chain(certificate, f"/proc/self/fd/{memory}", password=lambda: b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"{certificate} and what was given as its key are no PEM pair without a password.") from error
    finally:
        os.close(memory)
