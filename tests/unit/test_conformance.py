"""The conformance statement says what the listener does, and changes with the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.network import CT, EXPLICIT

from radnode import errors
from radnode.configuration import load_settings
from radnode.conformance import statement
from radnode.errors import ConfigError, PackageError
from radnode.fitness import Finding, examine
from radnode.initialise import initialise
from radnode.network.contexts import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from radnode.node import Node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return initialise(tmp_path / "node", 2762, None).parent


def node(folder: Path, network: str = "") -> Node:
    config = folder / "radnode.toml"
    text = config.read_text()
    kept = text[: text.index("[network]")] + f"[network]\n{network}\n" + text[text.index("[tls]") :]
    config.write_text(kept)
    return Node(load_settings(config))


def uids(rows: list[dict[str, str]]) -> list[str]:
    return [row["uid"] for row in rows]


def network_line(made: Node) -> Finding:
    return next(finding for finding in examine(made) if finding.subject == "network")


def test_statement_lists_what_is_offered(folder: Path) -> None:
    [verification, storage, commitment] = statement(node(folder))["scp"]
    assert verification["service"] == "Verification"
    assert set(uids(storage["sop_classes"])) == STORAGE_SOP_CLASSES
    assert uids(commitment["sop_classes"]) == ["1.2.840.10008.1.20.1"]
    assert uids(storage["transfer_syntaxes"]) == list(TRANSFER_SYNTAXES)
    [storage, _] = statement(node(folder, f'sop_classes = ["{CT}"]\ntransfer_syntaxes = ["{EXPLICIT}"]'))["scp"][1:]
    assert storage["sop_classes"] == [{"uid": CT, "keyword": "CTImageStorage"}]
    assert storage["transfer_syntaxes"] == [{"uid": EXPLICIT, "keyword": "ExplicitVRLittleEndian"}]


def test_policy_refuse_offers_what_the_detectors_of_the_rules_take(folder: Path) -> None:
    made = node(folder, 'unanalysable = "refuse"')
    taken = made.analysable()
    assert taken is not None
    assert "1.2.840.10008.5.1.4.1.1.1.1" in taken
    assert set(uids(statement(made)["scp"][1]["sop_classes"])) == taken
    assert network_line(made).text.startswith(f"{len(taken)} SOP classes in")


def test_policy_refuse_without_a_readable_detector_is_said_by_check(folder: Path) -> None:
    made = node(folder, 'unanalysable = "refuse"')
    next((folder / "models" / "cxr-opacity").rglob("model.toml")).write_text("changed")
    with pytest.raises(PackageError):
        made.analysable()
    assert not network_line(made).fit


def test_name_that_is_none_is_said_by_check(folder: Path) -> None:
    made = node(folder, 'sop_classes = ["CTImageStorag"]')
    assert "did you mean 'CTImageStorage'?" in network_line(made).text
    assert not network_line(made).fit
    with pytest.raises(ConfigError):
        statement(made)


def test_every_status_of_the_error_tree_stands_in_the_statement(folder: Path) -> None:
    said = {row["status"] for row in statement(node(folder))["store_statuses_sent"]}
    raised = {f"{kind.status:04X}" for kind in vars(errors).values() if "status" in getattr(kind, "__dict__", {})}
    assert said == raised | {"0000", "0211"}
