"""Signed notes and checkpoints: byte for byte those of C2SP and of Go's golang.org/x/mod/sumdb/note."""

from __future__ import annotations

import pytest

from radnode.audit.checkpoint import Checkpoint, Signer, Verifier
from radnode.errors import AuditError

# The key and note with which golang.org/x/mod/sumdb/note tests itself.
SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NOTE = f"{TEXT}\n— PeterNeumann {SIGNATURE}\n"


def test_signer_reproduces_the_reference_note() -> None:
    signer = Signer.from_string(SIGNER)
    assert str(signer.verifier) == VERIFIER
    assert signer.to_string() == SIGNER
    assert signer.sign(TEXT) == NOTE


def test_verifier_opens_the_reference_note() -> None:
    assert Verifier.from_string(VERIFIER + "\n").open(NOTE) == TEXT


def test_signatures_of_other_keys_are_ignored() -> None:
    other = Signer.generate("witness.example").sign(TEXT).removeprefix(f"{TEXT}\n")
    assert Verifier.from_string(VERIFIER).open(f"{TEXT}\n{other}{NOTE.removeprefix(TEXT)[1:]}") == TEXT


@pytest.mark.parametrize(
    "note",
    [
        NOTE.replace("cryptography", "cryptographY"),
        NOTE.replace("x08go/ZJ", "x08go/ZK"),
        NOTE.replace("x08g", "x08h"),
        NOTE.replace("— Peter", "- Peter"),
        NOTE.replace("— PeterNeumann", "— Other"),
        NOTE[:-1],
        TEXT,
        "",
    ],
)
def test_changed_note_does_not_open(note: str) -> None:
    with pytest.raises(AuditError):
        Verifier.from_string(VERIFIER).open(note)


@pytest.mark.parametrize("place", range(len(VERIFIER)))
def test_verifier_key_with_one_changed_character_is_refused(place: int) -> None:
    damaged = VERIFIER[:place] + chr(ord(VERIFIER[place]) + 1) + VERIFIER[place + 1 :]
    with pytest.raises(AuditError):
        Verifier.from_string(damaged)


@pytest.mark.parametrize(
    "key", ["", "PRIVATE+KEY", VERIFIER, SIGNER.replace("c74f", "c74e"), SIGNER[:-4], SIGNER + "!"]
)
def test_damaged_signing_key_is_refused(key: str) -> None:
    with pytest.raises(AuditError):
        Signer.from_string(key)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb"])
def test_key_name_that_a_note_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(AuditError):
        Signer.generate(name)


def test_checkpoint_text_is_that_of_the_specification() -> None:
    # the example of C2SP tlog-checkpoint
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.from_text(text)
    assert (checkpoint.origin, checkpoint.size, len(checkpoint.root)) == ("example.com/behind-the-sofa", 20852163, 32)
    assert checkpoint.text() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n1\n",
        "origin\n1\nAAAA\n",
        "origin\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n",
        "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
    ],
)
def test_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(AuditError):
        Checkpoint.from_text(text)
