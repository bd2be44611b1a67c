"""`radnode init`: the folder of a new node with its configuration, keys, test PKI and model packages."""

from __future__ import annotations

import json
import os
import secrets
import string
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from radnode.audit.checkpoint import Signer
from radnode.configuration import load_settings
from radnode.errors import ConfigError
from radnode.node import ORIGIN
from radnode.pki import fingerprint, make_test_pki
from radnode.settings import DestinationSettings
from radnode.storage.keys import KEY

SHIPPED_MODELS = Path(__file__).resolve().parent.parent / "models"

_DESTINATION = string.Template(
    """[[destinations]]
name = "pacs"
ae_title = "$ae_title"
host = "$host"
port = $port
tls = $tls                       # with this node's certificate; the PACS must hold one of the same authority
commitment = false                # true: "delivered" means that it has committed the report (PS3.4 Annex J)
# secondary = ["sc"]              # what it takes of what [report] and the rules want made; all of it by default

"""
)
_NO_DESTINATION = """# [[destinations]]
# name = "pacs"
# ae_title = "PACS"
# host = "127.0.0.1"
# port = 4242
# tls = true                      # with this node's certificate
# commitment = false                # true: "delivered" means that it has committed the report (PS3.4 Annex J)
# secondary = ["sc"]              # what it takes of what [report] and the rules want made; all of it by default

"""


def initialise(folder: Path, port: int, pacs: DestinationSettings | None) -> Path:
    """Make a node in `folder` and return its configuration file.

    Raises:
        ConfigError: there is a node already; nothing was changed.
    """
    os.umask(0o077)
    folder = folder.resolve()
    config = folder / "radnode.toml"
    for present in (config, *(folder / name for name in ("keys", "pki", "models", "node.db", "objects", "audit"))):
        if present.exists():
            raise ConfigError(f"{present} exists already; choose another folder, or remove the node there first.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        _make_keys(folder / "keys")
        make_test_pki(folder / "pki")
        _copy_models(folder / "models")
        _write(config, render(folder, port, pacs).encode())
    except OSError as error:
        raise ConfigError(f"The node cannot be made in {folder}: {error.strerror}.") from error
    load_settings(config)
    return config


def render(folder: Path, port: int, pacs: DestinationSettings | None) -> str:
    """Return the commented configuration of a node whose PKI stands in `folder`."""
    fingerprints = {name: fingerprint(folder / f"pki/{name}.crt") for name in ("modality", "server", "admin")}
    return fill(port, pacs, fingerprints)


def fill(port: int, pacs: DestinationSettings | None, fingerprints: Mapping[str, str]) -> str:
    """Return the template of the configuration with these values in it."""
    template = string.Template(resources.files("radnode").joinpath("templates/radnode.toml").read_text("utf-8"))
    destination = _NO_DESTINATION
    if pacs is not None:
        destination = _DESTINATION.substitute(
            ae_title=_text(pacs.ae_title), host=_text(pacs.host), port=pacs.port, tls=str(pacs.tls).lower()
        )
    return template.substitute(
        port=port,
        destinations=destination,
        deliver="" if pacs is None else '"pacs"',
        **{f"{name}_fingerprint": value for name, value in fingerprints.items()},
    )


def _text(value: str) -> str:
    """Return a value as it stands between the quotes of a TOML basic string."""
    return json.dumps(value, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")


def _make_keys(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name in ("kek-0001", "pseudonym", "audit"):
        _write(folder / f"{name}.key", secrets.token_hex(KEY).encode())
    signer = Signer.generate(ORIGIN)
    _write(folder / "audit-sign.key", signer.to_string().encode())
    _write(folder / "audit-sign.pub", str(signer.verifier).encode())


def _copy_models(target: Path) -> None:
    """Give the node its own copy of the shipped packages: an upgrade of the software changes no model by itself."""
    target.mkdir(mode=0o700)
    for source in sorted(SHIPPED_MODELS.rglob("*")):
        copy = target / source.relative_to(SHIPPED_MODELS)
        if source.is_dir():
            copy.mkdir(mode=0o700)
        else:
            _write(copy, source.read_bytes())


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(descriptor)
