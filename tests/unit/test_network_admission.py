"""Admission without a network: who is let in, in which order the rules speak, and how many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radnode.errors import ConfigError
from radnode.network.admission import (
    APPLICATION_CONTEXT_NAME,
    Admission,
    Certificate,
    Claim,
    Rejection,
    escape_ae_title,
)
from radnode.settings import NodeSettings, PeerSettings, Settings

RIGHT, WRONG = Certificate("a" * 64, frozenset({"ct1.example"})), Certificate("b" * 64, frozenset())


def admission(*peers: PeerSettings, **node) -> Admission:
    return Admission(Settings(node=NodeSettings(**node), peers=peers))


def claim(calling: bytes = b"CT1", called: bytes = b"RADNODE", **changes) -> Claim:
    values = {"address": "10.0.0.5", "tls": True, "certificate": RIGHT, **changes}
    return Claim(called.ljust(16), calling.ljust(16), APPLICATION_CONTEXT_NAME, **values)


def rule(decision: PeerSettings | Rejection) -> str | None:
    return decision.rule if isinstance(decision, Rejection) else None


BOUND = PeerSettings(ae_title="CT1", certificate_sha256="a" * 64)


@pytest.mark.parametrize(
    ("peer", "made", "expected"),
    [
        (BOUND, claim(), None),
        (BOUND, claim(b"  CT1"), None),
        (BOUND, claim(b"ct1"), "calling_ae_title_unknown"),
        (BOUND, claim(b"CT1\0"), "calling_ae_title_unknown"),
        (BOUND, claim(b""), "calling_ae_title_unknown"),
        (BOUND, claim(b"CT2", b"WRONG"), "calling_ae_title_unknown"),
        (BOUND, claim(called=b"WRONG"), "called_ae_title_unknown"),
        (BOUND, claim(certificate=WRONG), "certificate_of_another"),
        (BOUND, claim(certificate=None), "certificate_missing"),
        (BOUND, claim(tls=False, certificate=None), "calling_ae_title_needs_tls"),
        (PeerSettings(ae_title="CT1", san="CT1.example"), claim(), None),
        (PeerSettings(ae_title="CT1", san="ct2.example"), claim(), "certificate_of_another"),
        (
            PeerSettings(ae_title="CT1", certificate_sha256="b" * 64, san="ct1.example"),
            claim(),
            "certificate_of_another",
        ),
        (PeerSettings(ae_title="CT1"), claim(), "calling_ae_title_unbound"),
        (PeerSettings(ae_title="CT1"), claim(certificate=None), None),
        (PeerSettings(ae_title="CT1"), claim(tls=False, certificate=None), None),
        (BOUND.model_copy(update={"addresses": ("10.0.0.0/24",)}), claim(), None),
        (BOUND.model_copy(update={"addresses": ("10.0.1.0/24", "::1")}), claim(), "address_not_allowed"),
        (BOUND.model_copy(update={"addresses": ("10.0.0.5",)}), claim(tls=False, certificate=None), None),
    ],
)
def test_decision(peer, made, expected):
    decision = admission(peer).admit(made)
    assert rule(decision) == expected
    if isinstance(decision, Rejection):
        assert decision.advice.endswith(".")


def test_slots_are_counted_per_peer_and_in_all_and_come_back():
    other = PeerSettings(ae_title="CT2", certificate_sha256="a" * 64)
    gate = admission(BOUND, other, max_associations=3, max_associations_per_peer=2)
    first = gate.admit(claim())
    assert rule(gate.admit(claim())) is None
    assert rule(gate.admit(claim())) == "too_many_associations_of_peer"
    assert rule(gate.admit(claim(b"CT2"))) is None
    assert rule(gate.admit(claim(b"CT2"))) == "too_many_associations"
    gate.release(first)
    assert gate.running == 2
    assert rule(gate.admit(claim())) is None


def test_address_that_is_a_name_is_a_config_error():
    with pytest.raises(ConfigError, match="CT1"):
        admission(BOUND.model_copy(update={"addresses": ("ct1.example",)}))


@given(st.binary(min_size=16, max_size=16))
def test_escaped_titles_are_one_printable_line(raw):
    escaped = escape_ae_title(raw)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert escaped.encode("ascii").decode("unicode_escape").encode("latin-1") == raw.strip(b" ")
