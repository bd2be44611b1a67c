"""Row 23 with key providers of other people: down, slow, another key, revoked, while dcmtk sends to a running node.

Every image is answered A700, of a study that is known as well as of one that is new; nothing of it is on the disk, in
the clear or otherwise; and the node takes it once the provider is well again, by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from support import films
from support.crash import CrashNode
from support.node import wait_for
from support.traces import needles, traces, traces_in, values
from support.vault_server import TOKEN, TransitKey, VaultServer

PATIENT = f"PROVIDER{time.time_ns()}"
TIMEOUT_SECONDS = 2.0
CACHE_SECONDS = 0.2
REFUSED, TAKEN = "Received Store Response (Refused: OutOfResources)", "Received Store Response (Success)"


@dataclass(frozen=True)
class Provider:
    """How a node is told of it, and the troubles that may come over it."""

    settings: dict[str, str]
    troubles: dict[str, Callable[[], AbstractContextManager[None]]]


@contextmanager
def with_content(path: Path, content: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(content)
    yield
    path.write_text(before)


@contextmanager
def command(folder: Path) -> Iterator[Provider]:
    script, answer = folder / "kek.sh", folder / "answer.sh"
    script.write_text(f"#!/bin/sh\n. {answer}\n")
    script.chmod(0o700)
    answer.write_text(f"echo kek-0001 {'11' * 32}\n")
    troubles = {
        "down": "exit 3\n",
        "slow": "sleep 60\n",
        "another key": f"echo kek-0001 {'22' * 32}\n",
        "revoked": ": nothing is printed\n",
    }
    yield Provider(
        {"RADNODE_KEYS__PROVIDER": "command", "RADNODE_KEYS__COMMAND": f'["{script}"]'},
        {name: lambda text=text: with_content(answer, text) for name, text in troubles.items()},  # type: ignore[misc]
    )


@contextmanager
def vault(folder: Path) -> Iterator[Provider]:
    token = folder / "vault-token"
    token.write_text(TOKEN)
    with VaultServer() as server:

        @contextmanager
        def having(owner: object, name: str, value: object) -> Iterator[None]:
            before = getattr(owner, name)
            setattr(owner, name, value)
            yield
            setattr(owner, name, before)

        @contextmanager
        def down() -> Iterator[None]:
            server.down()
            yield
            server.up()

        yield Provider(
            {
                "RADNODE_KEYS__PROVIDER": "vault",
                "RADNODE_KEYS__VAULT_ADDRESS": server.address,
                "RADNODE_KEYS__VAULT_KEY": "radnode",
                "RADNODE_KEYS__VAULT_TOKEN_FILE": str(token),
            },
            {
                "down": down,
                "slow": lambda: having(server, "delay", 3 * TIMEOUT_SECONDS),
                "another key": lambda: having(server, "keys", {"radnode": TransitKey()}),
                "token revoked": lambda: having(server, "token", "another"),
                "key revoked": lambda: having(server.keys["radnode"], "min_decryption_version", 2),
            },
        )


def film(folder: Path, study: str) -> Path:
    path = folder / f"{generate_uid()}.dcm"
    dataset = films.fresh(films.MR, PatientID=PATIENT, PatientName=f"{PATIENT}^X", StudyInstanceUID=study)
    path.write_bytes(films.file_bytes(dataset))
    return path


def answer(node: CrashNode, path: Path) -> str:
    sent = node.storescu([path])
    [said] = [line for line in (sent.stdout + sent.stderr).splitlines() if "Received Store Response" in line]
    return said


@pytest.mark.parametrize("provider", [command, vault])
def test_row_23_provider_in_trouble_is_a700_leaves_nothing_on_the_disk_and_mends_by_itself(
    tmp_path: Path, provider: Callable[[Path], AbstractContextManager[Provider]]
) -> None:
    times = {"CACHE_SECONDS": CACHE_SECONDS, "TIMEOUT_SECONDS": TIMEOUT_SECONDS}
    with provider(tmp_path) as found:
        settings = found.settings | {f"RADNODE_KEYS__{name}": str(value) for name, value in times.items()}
        with CrashNode(tmp_path / "node", overrides=settings) as node:
            node.start(role="intake", wait=("intake",))
            known = generate_uid()
            paths = [film(tmp_path, known)]
            assert TAKEN in answer(node, paths[0])
            for name, trouble in found.troubles.items():
                time.sleep(CACHE_SECONDS)
                kept, keys = node.sealed(), node.query("SELECT count(*) FROM study_keys")
                fresh = [film(tmp_path, known), film(tmp_path, generate_uid())]
                paths += fresh
                with trouble():
                    for path in fresh:
                        began = time.monotonic()
                        assert REFUSED in answer(node, path), name
                        assert time.monotonic() - began < 4 * TIMEOUT_SECONDS, name
                    assert (node.sealed(), node.leftovers()) == (kept, 0), name
                    assert node.query("SELECT count(*) FROM study_keys") == keys, name
                    assert traces_in(node.folder, needles(values(paths))) == {}, name
                for path in fresh:
                    wait_for(lambda path=path: TAKEN in answer(node, path), 15, f"taken after {name}")  # type: ignore[misc]
            assert len(node.sealed()) == len(paths)
            assert traces(node.log_path.read_bytes(), needles(values(paths))) == []
            refused = {line["error"] for line in node.events("image_refused")}
            assert refused <= {"KeyUnavailable", "SealBroken"}
            assert node.stop() == 0
            assert (node.leftovers(), node.orphans(), node.missing()) == (0, set(), set())
            assert node.run("audit", "verify").returncode == 0
