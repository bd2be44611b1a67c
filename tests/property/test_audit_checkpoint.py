"""Notes, keys and checkpoints: what was written is read back, and any changed byte is noticed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from radnode.audit.checkpoint import Checkpoint, Signer, Verifier
from radnode.errors import AuditError

LINES = st.text(st.characters(min_codepoint=0x20, exclude_categories=["C", "Z"]), min_size=1, max_size=30)
NAMES = LINES.filter(lambda name: "+" not in name)
SEEDS = st.binary(min_size=32, max_size=32)
CHECKPOINTS = st.builds(
    Checkpoint, LINES, st.integers(0, 2**64), st.binary(min_size=32, max_size=32), st.lists(LINES).map(tuple)
)


@given(NAMES, SEEDS, CHECKPOINTS)
def test_signed_checkpoint_is_read_back(name: str, seed: bytes, checkpoint: Checkpoint) -> None:
    signer = Signer(name, Ed25519PrivateKey.from_private_bytes(seed))
    again = Signer.from_string(signer.to_string())
    verifier = Verifier.from_string(str(again.verifier))
    assert Checkpoint.from_text(verifier.open(again.sign(checkpoint.text()))) == checkpoint


@given(CHECKPOINTS, st.data())
def test_note_with_any_changed_byte_does_not_open(checkpoint: Checkpoint, data: st.DataObject) -> None:
    signer = Signer("radnode.example/audit", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    note = bytearray(signer.sign(checkpoint.text()).encode())
    place = data.draw(st.integers(0, len(note) - 1))
    note[place] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
    with pytest.raises((AuditError, UnicodeDecodeError)):
        signer.verifier.open(note.decode())


@given(st.text())
def test_arbitrary_text_never_raises_anything_else(text: str) -> None:
    for read in (Verifier.from_string, Signer.from_string, Checkpoint.from_text):
        try:
            read(text)
        except AuditError:
            continue
