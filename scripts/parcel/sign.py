"""A folder of files becomes a signed model package in its place."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parcel import toml
from radnode.detect.package import load_package, load_trusted, sign_package


def new_folder(out: Path, name: str, version: str) -> Path:
    """Return an empty folder beside the place of a package, with its folder of figures."""
    folder = out / name / f".{version}.new"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    return folder


def device_uid(folder: Path) -> str:
    """Return the UID of what was trained: derived from its weights, so new for every training."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest(folder / 'weights.pt2')).int}"


def finish(folder: Path, options: argparse.Namespace, manifest: Callable[[dict[str, str]], dict[str, Any]]) -> Path:
    """Write the manifest of what is in the folder, given the digests of its files; sign, check, and put it in place.

    `options` has `out` (models folder), `version`, `sign_key` (file) and `key_id`.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    document = manifest({name: digest(folder / name) for name in names})
    (folder / "model.toml").write_text(toml.dumps(document), encoding="utf-8")
    sign_package(folder, _signing_key(options), options.key_id)
    load_package(folder, load_trusted(options.out))
    place = folder.with_name(options.version)
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)
    print(f"wrote {place}")
    return place


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _signing_key(options: argparse.Namespace) -> Ed25519PrivateKey:
    """Return the key of the file, made when there is none, and see that its public half is trusted."""
    path: Path = options.sign_key
    if not path.exists():
        raw = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.touch(mode=0o600)
        path.write_bytes(raw)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"{path} is not an Ed25519 key")
    trusted = options.out / "trusted" / f"{options.key_id}.pub"
    if not trusted.exists():
        trusted.parent.mkdir(parents=True, exist_ok=True)
        trusted.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return key
