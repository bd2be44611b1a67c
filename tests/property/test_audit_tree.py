"""The incremental tree is the recursive definition of RFC 6962 section 2.1, for every size."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from radnode.audit.tree import Tree, leaf_hash


def merkle_tree_hash(data: list[bytes]) -> bytes:
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return sha256(b"\x01" + merkle_tree_hash(data[:split]) + merkle_tree_hash(data[split:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_tree_has_the_root_of_the_definition_at_every_size(data: list[bytes]) -> None:
    tree = Tree()
    assert tree.root() == merkle_tree_hash([])
    for size, leaf in enumerate(data, start=1):
        tree.append(leaf_hash(leaf))
        assert tree.root() == merkle_tree_hash(data[:size])
