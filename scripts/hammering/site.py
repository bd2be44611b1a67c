"""The node that is hammered: several modalities known to it, a quick detector, short patience."""

from __future__ import annotations

import datetime
from pathlib import Path

import click
from support import toys
from support.certificates import resigned
from support.crash import CrashNode
from support.failpoints import Failpoints

from radnode.pki import fingerprint

# AE title and name of the certificate; the first two come with `radnode init`.
MODALITIES = (("MODALITY1", "modality"), ("CT1", "ct1"), ("DX1", "dx1"), ("DX2", "dx2"))
_YEAR = datetime.timedelta(days=365)
_DAY = datetime.timedelta(days=1)
_PEER = """
[[peers]]
ae_title = "{title}"
certificate_sha256 = "{fingerprint}"
"""
_DETECTOR = "toy-quick"
_UNCOMMITTED = "\ncommitment = false"
SETTINGS = {
    "RADNODE_NETWORK__LISTENERS": "2",
    "RADNODE_NODE__DRAIN_SECONDS": "5",
    "RADNODE_DETECT__MAX_ATTEMPTS": "1000",  # an image that is killed with its worker again and again is no poison here
    "RADNODE_DELIVER__RETRY_SECONDS": "0.5",
    "RADNODE_DELIVER__RETRY_MAX_SECONDS": "2",
    "RADNODE_DELIVER__TIMEOUT_SECONDS": "10",
}


def make_node(folder: Path, pacs_port: int, failpoints: Failpoints, *, commit: bool) -> CrashNode:
    """Make a node that knows the modalities and looks at the failpoints."""
    patience = {"RADNODE_DELIVER__COMMITMENT_SECONDS": "5"} if commit else {}
    node = CrashNode(folder, pacs_port=pacs_port, overrides=SETTINGS | patience | failpoints.environment)
    toys.install(folder / "models", _DETECTOR, toys.Raises())
    text = node.config.read_text().replace('detect = ["cxr-opacity"]', f'detect = ["{_DETECTOR}"]')
    for title, name in MODALITIES[1:]:
        certificate = folder / "pki" / f"{name}.crt"
        resigned(folder / "pki", certificate, -_DAY, _YEAR)
        text += _PEER.format(title=title, fingerprint=fingerprint(certificate))
    if commit:
        if _UNCOMMITTED not in text:
            raise click.UsageError("--lose needs storage commitment, which this version has not.")
        text = text.replace(_UNCOMMITTED, "\ncommitment = true ")
        text += _PEER.format(title="PACS", fingerprint=fingerprint(folder / "pki" / "pacs.crt")) + 'may = ["echo"]\n'
    node.config.write_text(text)
    return node
