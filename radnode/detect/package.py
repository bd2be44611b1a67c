"""Model packages: one signed folder per version, `models/<name>/<version>/`. Imports without torch.

    model.toml      the manifest; holds the SHA-256 of every other file
    manifest.sig    key id and Ed25519 signature (RFC 8032) over the exact bytes of model.toml
    weights.*       a torch.export program (.pt2), TorchScript (.ts), or numbers for installed code (.safetensors)
    MODEL_CARD.md, metrics.json, figures/*.png

Nothing here unpickles: weights are handed out as bytes whose digest the signed manifest holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from radnode.detect.manifest import Manifest, parse_manifest
from radnode.errors import PackageError
from radnode.model import Code, ModelIdentity

MANIFEST = "model.toml"
SIGNATURE = "manifest.sig"
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose signature and files were checked when it was loaded."""

    path: Path
    manifest: Manifest
    identity: ModelIdentity
    key_id: str

    @property
    def target(self) -> Code:
        """The concept that the detector looks for."""
        return self.manifest.output.finding.code

    def read_weights(self) -> bytes:
        """Return the weights, checked again against the signed digest.

        Raises:
            PackageError: the file changed or went away since the package was loaded.
        """
        name = self.manifest.weights
        content = _read(self.path / name)
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise PackageError(f"The model package {self.path.name} does not load: {name} differs from the manifest.")
        return content


def load_package(folder: Path, trusted: Mapping[str, Ed25519PublicKey]) -> Package:
    """Return the package in `folder` when a trusted key signed it and every file is as signed.

    Raises:
        PackageError: the folder is no package, is unsigned, signed by an unknown key, or a file differs,
            is missing or is extra; the sentence names it.
    """
    manifest, content, key_id = _signed_manifest(folder, trusted)
    findings = _compare_files(folder, manifest)
    if findings:
        raise PackageError(f"The model package {manifest.name} {manifest.version} does not load: {findings[0]}.")
    identity = ModelIdentity(
        name=manifest.name,
        version=manifest.version,
        device_uid=manifest.device_uid,
        digest=hashlib.sha256(content).hexdigest(),
        manufacturer=manifest.manufacturer,
        parameters=(
            f"threshold {manifest.output.threshold:g} of a score in 0..1",
            *(["experimental"] if manifest.status == "experimental" else []),
        ),
    )
    return Package(folder, manifest, identity, key_id)


def verify_package(folder: Path, trusted: Mapping[str, Ed25519PublicKey]) -> list[str]:
    """Return what is wrong with the package, one sentence or clause each; empty when nothing is.

    Every file that differs, is missing or is extra is named, also when the signature does not hold.
    """
    try:
        manifest, _, _ = _signed_manifest(folder, trusted)
    except PackageError as error:
        findings = [str(error)]
        try:
            manifest = parse_manifest(_read(folder / MANIFEST, MAX_MANIFEST_BYTES))
        except PackageError:
            return findings
        return findings + _compare_files(folder, manifest)
    return _compare_files(folder, manifest)


def stated_level(folder: Path) -> Literal["instance", "series"]:
    """Return what the manifest says that the detector looks at, signed or not; images where it cannot be read.

    A package that does not load still decides so whether each image or the whole series gets the report that says it.
    """
    try:
        return parse_manifest(_read(folder / MANIFEST, MAX_MANIFEST_BYTES)).accepts.level
    except PackageError:
        return "instance"


def sign_package(folder: Path, private_key: Ed25519PrivateKey, key_id: str) -> None:
    """Write `manifest.sig` for the manifest as it stands.

    Raises:
        PackageError: the manifest is not usable or a file is not as it says, so that it must not be signed.
    """
    content = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(content)
    findings = _compare_files(folder, manifest)
    if findings:
        raise PackageError(f"The model package {manifest.name} {manifest.version} is not signed: {findings[0]}.")
    signature = base64.b64encode(private_key.sign(content)).decode("ascii")
    (folder / SIGNATURE).write_text(f"key-id: {key_id}\nsignature: {signature}\n", encoding="ascii")


def load_trusted(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return the keys of `trusted/*.pub` in a models folder (PEM, Ed25519) by key id, the stem of the file's name.

    Raises:
        PackageError: a file there is not such a key.
    """
    return {path.stem: _key(path)[1] for path in sorted((folder / "trusted").glob("*.pub"))}


def public_key(path: Path) -> bytes:
    """Return an Ed25519 public key (PEM) as it stands in its file.

    Raises:
        PackageError: it is none.
    """
    return _key(path)[0]


def _key(path: Path) -> tuple[bytes, Ed25519PublicKey]:
    try:
        content = path.read_bytes()
        key = load_pem_public_key(content)
    except (OSError, ValueError) as error:
        raise PackageError(f"The trusted key {path.name} cannot be read as a PEM public key.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise PackageError(f"The trusted key {path.name} is not an Ed25519 key.")
    return content, key


def _signed_manifest(folder: Path, trusted: Mapping[str, Ed25519PublicKey]) -> tuple[Manifest, bytes, str]:
    """Return the manifest, its bytes and the key that signed it; nothing is parsed before the signature holds."""
    content = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
    if not (folder / SIGNATURE).is_file():
        raise PackageError(f"The model package {folder.name} is not signed: there is no {SIGNATURE}.")
    key_id, signature = _parse_signature(_read(folder / SIGNATURE, MAX_SIGNATURE_BYTES))
    key = trusted.get(key_id)
    if key is None:
        raise PackageError(f"The model package {folder.name} is signed by the unknown key {key_id!r}.")
    try:
        key.verify(signature, content)
    except InvalidSignature as error:
        raise PackageError(f"The signature of {folder.name} does not hold: {MANIFEST} was changed.") from error
    return parse_manifest(content), content, key_id


def _parse_signature(text: bytes) -> tuple[str, bytes]:
    """Return key id and signature of a `manifest.sig`."""
    lines = text.decode("ascii", errors="replace").splitlines()
    if len(lines) != 2 or not lines[0].startswith("key-id: ") or not lines[1].startswith("signature: "):
        raise PackageError(f"{SIGNATURE} is not a signature file.")
    try:
        return lines[0].removeprefix("key-id: "), base64.b64decode(lines[1].removeprefix("signature: "), validate=True)
    except binascii.Error as error:
        raise PackageError(f"{SIGNATURE} is not a signature file.") from error


def package_files(folder: Path) -> list[str]:
    """Return the files in a folder that its manifest has to name: all but itself and its signature."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in names if name not in {MANIFEST, SIGNATURE})


def _compare_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return a clause for each file that differs from the manifest, is missing, or is extra."""
    present = set(package_files(folder))
    findings = []
    for name, digest in sorted(manifest.files.items()):
        path = folder / name
        if name not in present:
            findings.append(f"{name} is missing")
        elif path.is_symlink():
            findings.append(f"{name} is a symbolic link")
        elif _digest(path) != digest:
            findings.append(f"{name} differs from the manifest")
    return findings + [f"{name} is not in the manifest" for name in sorted(present - manifest.files.keys())]


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PackageError(f"{path.name} cannot be read: {type(error).__name__}.") from error


def _read(path: Path, limit: int | None = None) -> bytes:
    """Return the content of a file, at most `limit` bytes."""
    try:
        if limit is not None and path.stat().st_size > limit:
            raise PackageError(f"{path.name} is larger than {limit} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path.name} of the model package {path.parent.name} cannot be read.") from error
