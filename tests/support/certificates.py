"""Certificates of the test authority that have gone bad: outside their dates, or revoked."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


def resigned(folder: Path, target: Path, begin: datetime.timedelta, end: datetime.timedelta) -> int:
    """Write the modality's certificate with dates from now, its key beside it; return its serial number."""
    old = x509.load_pem_x509_certificate((folder / "modality.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().issuer_name(old.issuer).subject_name(old.subject)
    builder = builder.public_key(old.public_key()).serial_number(x509.random_serial_number())
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    new = builder.not_valid_before(now + begin).not_valid_after(now + end).sign(_authority_key(folder), hashes.SHA256())
    target.write_bytes(new.public_bytes(serialization.Encoding.PEM))
    target.with_suffix(".key").write_bytes((folder / "modality.key").read_bytes())
    return new.serial_number


def revocation_list(folder: Path, target: Path, serial_number: int) -> None:
    """Write a revocation list (PEM) of the authority that names one certificate."""
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    revoked = x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(now - DAY / 24).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    crl = crl.last_update(now - DAY / 24).next_update(now + DAY).add_revoked_certificate(revoked)
    signed = crl.sign(_authority_key(folder), hashes.SHA256())
    target.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _authority_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
