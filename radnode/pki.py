"""A public key infrastructure for tests and first steps: one authority and four certificates.

A hospital brings its own; nothing in radnode depends on these. Keys are ECDSA P-256 and unencrypted, in files
with mode 0600 in a folder with mode 0700.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from radnode.errors import ConfigError

AUTHORITY_DAYS = 3650
LEAF_DAYS = 825  # the longest that TLS clients accept of a leaf
LEAVES = ("server", "modality", "pacs", "admin")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_BACKDATED = datetime.timedelta(minutes=5)  # clocks of peers


def make_test_pki(folder: Path, hosts: Iterable[str] = ()) -> None:
    """Write `ca`, `server`, `modality`, `pacs` and `admin` as .crt and .key (PEM) into `folder`.

    `server` and `pacs` stand for localhost, 127.0.0.1, ::1 and `hosts`; all can be client and server, since an
    AE that receives also sends.

    Raises:
        ConfigError: one of the files is there already; nothing is written then.
    """
    for name in ("ca", *LEAVES):
        for path in (folder / f"{name}.crt", folder / f"{name}.key"):
            if path.exists():
                raise ConfigError(f"{path} is there already; name another folder or remove it first.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    names = list(dict.fromkeys((*_LOCAL, *hosts)))
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    _write(folder, "ca", authority_key, authority)
    for leaf in LEAVES:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder, leaf, key, _leaf(leaf, names, key, authority, authority_key))


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 of a PEM certificate as 64 lower-case hex digits.

    Raises:
        ConfigError: the file is missing, unreadable or no PEM certificate.
    """
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    except OSError as error:
        raise ConfigError(f"{certificate} cannot be read: {type(error).__name__}.") from error
    except ValueError as error:
        raise ConfigError(f"{certificate} is not a PEM certificate.") from error


def _builder(
    name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    """Return what authority and leaf have in common."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "radnode test PKI"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    begin = datetime.datetime.now(datetime.UTC) - _BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return the self-signed authority; it signs leaves and revocation lists and no further authority."""
    return (
        _builder("radnode test authority", None, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    name: str,
    hosts: list[str],
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """Return one leaf; those that are reached by name carry `hosts`, the others their own name."""
    alternatives = hosts if name in ("server", "pacs") else [name]
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(name, authority.subject, key, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in alternatives]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    """Write certificate and key; the key file never exists with a wider mode than 0600."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    descriptor = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
