"""`radnode check`: what makes a node unfit is one BAD line that says what to do, each thing said once."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from radnode.configuration import load_settings
from radnode.fitness import Finding, examine
from radnode.initialise import initialise
from radnode.jobs.database import transaction
from radnode.model import JobKind
from radnode.node import Node
from radnode.pki import fingerprint
from radnode.settings import DestinationSettings

PACS = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return initialise(tmp_path / "node", 2762, PACS).parent


def look(folder: Path) -> dict[str, Finding]:
    node = Node(load_settings(folder / "radnode.toml"))
    findings = list(examine(node))
    if "engine" in vars(node):
        node.engine.dispose()
    assert len({finding.subject for finding in findings}) == len(findings)
    return {finding.subject: finding for finding in findings}


def edit(folder: Path, change: Callable[[str], str]) -> None:
    config = folder / "radnode.toml"
    config.write_text(change(config.read_text()))


def bad(found: dict[str, Finding]) -> dict[str, str]:
    return {finding.subject: finding.text for finding in found.values() if not finding.fit}


def test_new_node_is_fit_but_for_its_pacs_that_is_down(folder: Path) -> None:
    assert bad(look(folder)) == {"destination pacs": "The destination pacs cannot be reached (ConnectionRefusedError)."}


def test_data_folder_that_is_not_there_is_one_finding(folder: Path) -> None:
    edit(folder, lambda text: text.replace('data_dir = "."', 'data_dir = "nowhere"'))
    found = look(folder)
    assert list(bad(found)) == ["data_dir"]
    assert f"there is no folder {folder / 'nowhere'}" in found["data_dir"].text


def test_dead_letter_is_bad(folder: Path) -> None:
    node = Node(load_settings(folder / "radnode.toml"))
    with transaction(node.engine) as tx:
        for subject in ("a", "b"):
            node.queue.add(tx, JobKind.DELIVER, subject, "pacs")
    assert look(folder)["jobs"] == Finding("jobs", True, "2 deliver ready")
    for lease in node.queue.lease(JobKind.DELIVER, "t:1", 60, 2, "pacs"):
        with transaction(node.engine) as tx:
            node.queue.bury(tx, lease, "refused")
    node.engine.dispose()
    assert look(folder)["jobs"] == Finding("jobs", False, "2 dead letters; see `radnode jobs list`.")


def test_what_waits_for_a_destination_or_peer_that_was_removed_is_bad_and_says_what_to_do(folder: Path) -> None:
    node = Node(load_settings(folder / "radnode.toml"))
    with transaction(node.engine) as tx:
        for subject in ("a", "b"):
            node.queue.add(tx, JobKind.DELIVER, subject, "old")
        node.queue.add(tx, JobKind.FORWARD, "c", "pacs")
        node.queue.add(tx, JobKind.COMMIT, "d", "CT9")
    node.engine.dispose()
    found = bad(look(folder))
    assert set(found) == {"destination pacs", "destination old", "peer CT9"}
    assert found["destination old"] == (
        "2 wait for it, the oldest for 0 minutes, and the configuration does not name it. Add it again as a "
        "destination, or drop them: `radnode jobs discard --destination old`."
    )


def test_node_without_detectors_says_that_it_analyses_nothing_and_needs_no_worker(folder: Path) -> None:
    edit(folder, lambda text: text.replace('detect = ["cxr-opacity"]', ""))
    said = look(folder)["rules"].text
    assert said == "1, all of them can be used; none of them names a detector: no image is analysed"
    node = Node(load_settings(folder / "radnode.toml"))
    assert not node.has_analyses()
    with transaction(node.engine) as tx:
        node.queue.add(tx, JobKind.SERIES, "left from before")
    assert node.has_analyses()
    (lease,) = node.queue.lease(JobKind.SERIES, "worker:1", 60)
    assert node.has_analyses()
    with transaction(node.engine) as tx:
        node.queue.bury(tx, lease, "failed")
    assert node.has_analyses()  # an operator may retry it
    with transaction(node.engine) as tx:
        node.queue.discard(tx, lease.job_id)
    assert not node.has_analyses()
    node.engine.dispose()


@pytest.mark.parametrize(("name", "subject"), [("pki/server.key", "tls.key"), ("keys/audit.key", "keys")])
def test_key_that_others_can_read_is_bad(folder: Path, name: str, subject: str) -> None:
    (folder / name).chmod(0o640)
    found = look(folder)[subject]
    path = folder / name
    assert found == Finding(subject, False, f"{path.name} in {path.parent} is open to other users; chmod it to 0600.")


def test_own_peer_with_another_certificate_is_bad_and_says_the_right_one(folder: Path) -> None:
    for suffix in ("crt", "key"):
        shutil.copyfile(folder / f"pki/admin.{suffix}", folder / f"pki/server.{suffix}")
    own = fingerprint(folder / "pki/server.crt")
    text = f"the peer RADNODE is bound to another certificate; set its certificate_sha256 to {own}."
    assert look(folder)["peers"] == Finding("peers", False, text)


def test_peer_that_is_bound_to_nothing_is_bad_where_certificates_are_demanded(folder: Path) -> None:
    edit(folder, lambda text: text + '\n[[peers]]\nae_title = "CT1"\n')
    text = "the peer CT1 can never connect; set its certificate_sha256 or san."
    assert look(folder)["peers"] == Finding("peers", False, text)
    edit(folder, lambda text: text.replace("plain_port = 0 ", "plain_port = 11112 "))
    assert look(folder)["peers"].fit


def test_destination_that_no_rule_delivers_to_is_said(folder: Path) -> None:
    edit(folder, lambda text: text.replace('deliver = ["pacs"]', "deliver = []"))
    assert look(folder)["destination pacs"].text.endswith("; no rule delivers to it")


def test_missing_tls_file_is_explained_once(folder: Path) -> None:
    (folder / "pki/ca.crt").unlink()
    found = bad(look(folder))
    assert list(found) == ["tls.ca", "tls", "destination pacs"]
    assert [text for text in found.values() if "There is no file" in text] == [found["tls.ca"]]
    assert found["destination pacs"] == "not tried: this node's TLS files cannot be used."


@pytest.mark.parametrize(("days", "fit", "text"), [(2, True, "valid until "), (-1, False, "no peer is let in")])
def test_revocation_list_is_looked_at_and_one_that_expired_is_bad(
    folder: Path, days: int, fit: bool, text: str
) -> None:
    key = serialization.load_pem_private_key((folder / "pki/ca.key").read_bytes(), None)
    issuer = x509.load_pem_x509_certificate((folder / "pki/ca.crt").read_bytes()).subject
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer)
    builder = builder.last_update(now - datetime.timedelta(days=5)).next_update(now + datetime.timedelta(days=days))
    made = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (folder / "pki/ca.crl").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    edit(folder, lambda config: config.replace('# crl = "pki/ca.crl"', 'crl = "pki/ca.crl"'))
    found = look(folder)["tls.crl"]
    assert found.fit is fit
    assert text in found.text
    (folder / "pki/ca.crl").write_bytes((folder / "pki/ca.crt").read_bytes())
    assert look(folder)["tls.crl"].text.endswith("is not a PEM revocation list.")
