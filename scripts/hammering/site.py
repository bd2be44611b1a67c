"""The node that is hammered: known modalities, quick detectors, a rule for each, short patience."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import click
from support import toys
from support.certificates import resigned
from support.crash import CrashNode
from support.failpoints import Failpoints

from hammering.images import FORWARDED
from radnode.pki import fingerprint

# AE title and name of the certificate; the first two come with `radnode init`.
MODALITIES = (("MODALITY1", "modality"), ("CT1", "ct1"), ("DX1", "dx1"), ("DX2", "dx2"))
ASKER = MODALITIES[1]  # who also asks for storage commitments
_YEAR = datetime.timedelta(days=365)
_DAY = datetime.timedelta(days=1)
_PEER = """
[[peers]]
ae_title = "{title}"
certificate_sha256 = "{fingerprint}"
may = ["store", "echo", "commit"]
"""
_COMMIT = 'commit = {{ host = "127.0.0.1", port = {port} }}\n'
_OF_IMAGES, _OF_SERIES = "toy-quick", "toy-bright"
_RULES = """
[[rules]]
match = {{ Modality = "CT" }}
detect = ["{of_series}"]
deliver = ["pacs"]

[[rules]]
match = {{ Modality = "{forwarded}" }}
forward = ["archive"]
priority = "high"

[[destinations]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
"""
SETTINGS = {
    "RADNODE_NETWORK__LISTENERS": "2",
    "RADNODE_NODE__DRAIN_SECONDS": "5",
    "RADNODE_DETECT__MAX_ATTEMPTS": "1000",  # an image that is killed with its worker again and again is no poison here
    "RADNODE_COMPLETION__QUIET_SECONDS": "1",
    "RADNODE_DELIVER__RETRY_SECONDS": "0.5",
    "RADNODE_DELIVER__RETRY_MAX_SECONDS": "2",
    "RADNODE_DELIVER__PROBE_SECONDS": "2",
    "RADNODE_DELIVER__TIMEOUT_SECONDS": "10",
    "RADNODE_DELIVER__COMMITMENT_SECONDS": "3",
}


def make_node(folder: Path, pacs_port: int, asker_port: int, failpoints: Failpoints) -> CrashNode:
    """Make a node that knows the modalities, looks at the failpoints, and holds its PACS to its commitments.

    Reports go to `pacs`, which is to commit them, films of one modality to `archive`, which is the same PACS and is
    not asked.
    """
    node = CrashNode(folder, pacs_port=pacs_port, overrides=SETTINGS | failpoints.environment)
    toys.install(folder / "models", _OF_IMAGES, toys.Raises())
    toys.install_series(folder / "models", _OF_SERIES, toys.Bright())
    text = node.config.read_text()
    for key, value in (
        ("commitment", "true"),
        ("match", '{ Modality = ["CR", "DX"] }'),
        ("detect", f'["{_OF_IMAGES}"]'),
    ):
        text = _changed(text, key, value)
    text += _RULES.format(port=pacs_port, of_series=_OF_SERIES, forwarded=FORWARDED)
    for title, name in MODALITIES[1:]:
        certificate = folder / "pki" / f"{name}.crt"
        resigned(folder / "pki", certificate, -_DAY, _YEAR)
        text += _PEER.format(title=title, fingerprint=fingerprint(certificate))
        text += _COMMIT.format(port=asker_port) if title == ASKER[0] else ""
    text += _PEER.format(title="PACS", fingerprint=fingerprint(folder / "pki" / "pacs.crt"))
    node.config.write_text(text)
    return node


def _changed(text: str, key: str, value: str) -> str:
    """Return a configuration in which the one key of this name has another value."""
    text, count = re.subn(rf"(?m)^{key} = .*$", lambda _: f"{key} = {value}", text)
    if count != 1:
        raise click.ClickException(f"`radnode init` wrote {count} keys {key}; the hammer knows of one.")
    return text
