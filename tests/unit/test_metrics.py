"""Metrics are served where a port is set, with what can be read at that moment, and to no client for ever."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import toys

from radnode import metrics
from radnode.audit import events
from radnode.configuration import load_settings
from radnode.errors import ConfigError
from radnode.initialise import initialise
from radnode.jobs.database import transaction
from radnode.jobs.scores import count_score
from radnode.metrics import MetricsServer
from radnode.node import Node
from radnode.settings import MetricsSettings, RuleSettings


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = load_settings(initialise(tmp_path / "node", 2762, None))
    node = Node(settings.model_copy(update={"metrics": MetricsSettings(port=0)}))
    node.record(events.COMMAND_USED, node.actor())
    node.settle_trail()
    yield node
    node.engine.dispose()


def gauges(server: MetricsServer) -> dict[str, list[float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {family.name: [sample.value for sample in family.samples] for family in families}


def test_what_can_be_read_is_served_and_the_rest_is_left_out(node: Node) -> None:
    with MetricsServer(node) as server:
        found = gauges(server)
        assert set(found) == {
            "radnode_audit_trail_entries",
            "radnode_certificate_end_seconds",
            "radnode_disk_free_bytes",
            "radnode_model_images",
        }
        assert found["radnode_model_images"] == [0]
        assert found["radnode_audit_trail_entries"] == [1]
        assert all(time.time() < end < time.time() + 3651 * 86_400 for end in found["radnode_certificate_end_seconds"])
        (node.settings.data_dir / "pki" / "ca.crt").unlink()
        assert "radnode_certificate_end_seconds" not in gauges(server)


def test_port_that_is_taken_is_a_configuration_that_cannot_be_used(node: Node) -> None:
    with MetricsServer(node) as server:
        node.settings = node.settings.model_copy(update={"metrics": MetricsSettings(port=server.port)})
        with pytest.raises(ConfigError, match="Metrics cannot listen"):
            MetricsServer(node)


def test_client_that_says_nothing_is_closed_at_the_deadline(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DEADLINE_SECONDS", 0.3)
    with MetricsServer(node) as server, socket.create_connection(("127.0.0.1", server.port), 10) as silent:
        assert silent.recv(1) == b""


def test_drift_of_a_models_scores_is_a_gauge(node: Node) -> None:
    folder = node.settings.path(node.settings.detect.models)
    toys.trust(folder)
    package = toys.package(
        folder / "toy" / "1.0.0", "toy", b"numbers", version="1.0.0", percentiles=[0, 1], threshold=0.5
    )
    manifest = package / "model.toml"
    deciles = [number / 10 for number in range(1, 10)]
    manifest.write_text(manifest.read_text().replace("[output]", f"[output]\ndeciles = {deciles}"))
    toys.sign_package(package, toys.KEY, "tests")
    node.settings = node.settings.model_copy(update={"rules": (RuleSettings(detect=("toy",)),)})
    with transaction(node.engine) as tx:
        for _ in range(200):
            count_score(tx, "toy 1.0.0", 0.95, time.time())
    with MetricsServer(node) as server:
        found = gauges(server)
    assert found["radnode_model_images"] == [200]
    assert found["radnode_model_drift_index"][0] > 2.0
