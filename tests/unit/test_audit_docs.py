"""docs/audit-trail.md says what the code does: its test vector, its events, its details."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from radnode.audit import events
from radnode.audit.checkpoint import Checkpoint, Signer, Verifier
from radnode.audit.log import open_sealed
from radnode.audit.verify import Verification, verify

PAGE = (Path(__file__).parents[2] / "docs" / "audit-trail.md").read_text(encoding="utf-8")
KEY = bytes(range(32))


def block(name: str) -> str:
    match = re.search(rf"^```{name}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert match
    return match[1]


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    (tmp_path / "audit" / "checkpoints").mkdir(parents=True)
    (tmp_path / "audit.pub").write_text(block("key"))
    (tmp_path / "audit" / "trail-000000000001.jsonl").write_text(block("jsonl"))
    (tmp_path / "audit" / "checkpoints" / "vector.notes").write_text(block("notes") + "\n")
    return tmp_path


def test_vector_verifies(vector: Path) -> None:
    assert verify(vector / "audit", vector / "audit.pub") == Verification(True, 3, 1, 3)


def test_key_of_the_vector_is_that_of_the_seed_and_signs_the_same_note() -> None:
    signer = Signer("radnode.example/audit", Ed25519PrivateKey.from_private_bytes(KEY))
    assert str(signer.verifier) + "\n" == block("key")
    text = Verifier.from_string(block("key")).open(block("notes"))
    assert signer.sign(text) == block("notes")


def test_hashes_of_the_vector_are_those_of_rfc_6962() -> None:
    leaves = [sha256(b"\x00" + line.encode()).digest() for line in block("jsonl").splitlines()]
    pair = sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    roots = [leaves[0], pair, sha256(b"\x01" + pair + leaves[2]).digest()]
    for number in range(3):
        assert f"| {number + 1} | `{leaves[number].hex()}` | `{roots[number].hex()}` |" in PAGE
    note = Checkpoint.from_text(Verifier.from_string(block("key")).open(block("notes")))
    assert (note.size, note.root) == (3, roots[2])
    assert base64.b64encode(roots[2]).decode() in block("notes")
    assert note.extension[1] == f"prev {leaves[1].hex()}"


def test_sealed_identity_of_the_vector_opens() -> None:
    sealed = [open_sealed(json.loads(line), KEY) for line in block("jsonl").splitlines()]
    assert sealed == [None, {"PatientID": "4711", "StudyInstanceUID": "2.25.1"}, None]
    assert json.dumps(sealed[1], separators=(",", ":")) in PAGE


def test_every_event_and_detail_stands_in_the_page() -> None:
    listed = dict(re.findall(r"^\| `(\d{6} \w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert set(listed) == {event.label for event in events.CATALOGUE.values()}
    for event in events.CATALOGUE.values():
        kind = f" / {event.type_code.value} {event.type_code.meaning}" if event.type_code else ""
        assert listed[event.label] == f"{event.code.meaning}{kind} | {event.action.value} | {event.outcome.value}"
    assert (
        set(re.findall(r"`(\w+)`", PAGE.split("Keys that `detail` may have:")[1].split(".")[0])) == events.DETAIL_KEYS
    )
