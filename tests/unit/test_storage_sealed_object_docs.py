"""docs/sealed-object.md is true: its vectors are what radnode writes and what a reader made from it opens."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import unseal as independent
from support.rooms import Rooms
from support.sealed import header_of, open_sealed, seal

from radnode.storage import sealing
from radnode.storage.sealing import Kind

PAGE = (Path(__file__).parents[2] / "docs" / "sealed-object.md").read_text(encoding="utf-8")
PARAMETERS = {
    name: bytes.fromhex(value)
    for name, value in re.findall(r"^(study key|salt|key id|object id) +([0-9a-f]+)$", PAGE, re.MULTILINE)
}
_VECTOR = re.compile(
    r"^### Vector (\w): kind (\d), chunk size (\d+), (\d+) bytes\n\n```vector\nplaintext  (\S+)\n"
    r"object key (\S+)\ncommitment (\S+)\nsealed\n(.*?)```",
    re.MULTILINE | re.DOTALL,
)
VECTORS = {found[0]: found[1:] for found in _VECTOR.findall(PAGE)}


def test_page_has_vectors_of_every_kind_with_one_and_several_chunks() -> None:
    assert {int(kind) for kind, *_ in VECTORS.values()} == set(Kind)
    assert len(VECTORS) == PAGE.count("### Vector") >= 4
    assert any(int(size) > int(chunk) for _, chunk, size, *_ in VECTORS.values())
    assert any(int(size) == 0 for _, _, size, *_ in VECTORS.values())


@pytest.mark.parametrize("name", VECTORS)
def test_vector_opens_in_both_readers(name: str) -> None:
    _, _, size, plaintext, _, commitment, body = VECTORS[name]
    sealed = bytes.fromhex(body)
    expected = b"" if plaintext == "-" else bytes.fromhex(plaintext)
    assert len(expected) == int(size)
    assert open_sealed(sealed, PARAMETERS["study key"]) == expected
    assert independent.unseal(sealed, PARAMETERS["study key"]) == expected
    header = header_of(sealed)
    assert (header.key_id, header.object_id) == (PARAMETERS["key id"], PARAMETERS["object id"])
    assert header.commitment.hex() == commitment


@pytest.mark.parametrize("name", VECTORS)
def test_radnode_writes_the_vector(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, chunk, _, plaintext, _, _, body = VECTORS[name]
    monkeypatch.setattr(sealing, "CHUNK", int(chunk))
    monkeypatch.setattr(sealing.os, "urandom", lambda count: PARAMETERS["salt"][:count])
    sealed = seal(
        b"" if plaintext == "-" else bytes.fromhex(plaintext),
        kind=Kind(int(kind)),
        key_id=PARAMETERS["key id"],
        study_key=PARAMETERS["study key"],
        object_id=PARAMETERS["object id"],
    )
    assert sealed == bytes.fromhex(body)


def test_object_that_is_cut_out_by_hand_as_the_page_says_opens_in_the_independent_reader(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    contents = [b"first", bytes(3 << 20), b"third"]
    ids = [rooms.vault.put("study", Kind.INSTANCE, content) for content in contents]
    key = rooms.keys.of_study("study").secret
    (script,) = re.findall(r"^```sh\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    for object_id, content in zip(ids, contents, strict=True):
        subprocess.run(["bash", "-euc", script, "-", object_id.hex()], cwd=tmp_path, check=True)
        sealed = (tmp_path / f"{object_id.hex()}.sealed").read_bytes()
        assert sealed[32:48] == object_id
        assert independent.unseal(sealed, key) == content
    rooms.close()


def test_independent_reader_is_short_and_imports_nothing_of_radnode(tmp_path: Path) -> None:
    source = inspect.getsource(independent)
    assert len(source.splitlines()) <= 60
    assert not re.search(r"^\s*(from|import) radnode", source, re.MULTILINE)
    file = tmp_path / "vector.sealed"
    file.write_bytes(bytes.fromhex(VECTORS["B"][-1]))
    command = [sys.executable, "-I", independent.__file__, PARAMETERS["study key"].hex(), str(file)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"DICM"
