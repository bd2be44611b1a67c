"""Numbers for a monitoring system over HTTP, in the text format of Prometheus: depths, delays and ends, and no names.

Served by the sequencer, of which each node has one. What cannot be read at a moment is left out of that answer.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from radnode.audit.files import end_of_trail
from radnode.errors import ConfigError, RadnodeError
from radnode.node import Node
from radnode.repository import backlog

DEADLINE_SECONDS = 5.0  # for each step of a request


class Gauges(Collector):
    """What is measured at each request."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every gauge that can be read now."""
        for read in (self._trail, self._repository, self._certificates, self._disk, self._models):
            yield from _readable(read)

    def _trail(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge("audit_trail_entries", "Entries of the audit trail.", end_of_trail(self._node.audit_folder)[0])

    def _repository(self) -> Iterator[GaugeMetricFamily]:
        if self._node.settings.audit.syslog is None:
            return
        behind = backlog(self._node)
        depth = "Entries that the audit repository has not taken yet."
        yield _gauge("audit_repository_waiting_entries", depth, behind.depth)
        yield _gauge("audit_repository_delay_seconds", "How long the oldest of them has waited.", behind.seconds)

    def _certificates(self) -> Iterator[GaugeMetricFamily]:
        from radnode.network.tls import certificate_expiry  # noqa: PLC0415 (no other part of the network is needed)

        ends = GaugeMetricFamily("radnode_certificate_end_seconds", "When it ends (Unix time).", labels=["setting"])
        for name in ("certificate", "ca"):
            path = self._node.settings.path(getattr(self._node.settings.tls, name))
            ends.add_metric([f"tls.{name}"], certificate_expiry(path).timestamp())
        yield ends

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        free = shutil.disk_usage(self._node.settings.data_dir).free
        yield _gauge("disk_free_bytes", "Room on the disk of data_dir.", free)

    def _models(self) -> Iterator[GaugeMetricFamily]:
        from radnode.detect.drift import LOOK_DAYS, drifts  # noqa: PLC0415 (few nodes are asked for numbers)

        images = GaugeMetricFamily("radnode_model_images", "Images with a score, in seven days.", labels=["model"])
        index = GaugeMetricFamily(
            "radnode_model_drift_index", "Stability index of the scores against the card's.", labels=["model"]
        )
        node = self._node
        for found in drifts(node.catalogue(), node.engine, node.rules.detectors, LOOK_DAYS, node.stores.clock()):
            images.add_metric([f"{found.name} {found.version}"], found.images)
            if found.index is not None:
                index.add_metric([f"{found.name} {found.version}"], found.index)
        yield from (family for family in (images, index) if family.samples)


class MetricsServer:
    """Answers on `metrics.bind` and `metrics.port`, in threads, until it is closed. A context manager.

    Raises:
        ConfigError: the port is taken, or the address is not one of this machine.
    """

    def __init__(self, node: Node) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Gauges(node))
        handler = MetricsHandler.factory(registry)
        handler.timeout = DEADLINE_SECONDS  # type: ignore[attr-defined]
        where = node.settings.metrics.bind, node.settings.metrics.port
        try:
            self._server = _Server(where, handler)
        except OSError as error:
            raise ConfigError(f"Metrics cannot listen on {where[0]}:{where[1]} ({error.strerror}).") from error
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went early; what it sent is nobody's business."""


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"radnode_{name}", text, value=value)


def _readable(read: Callable[[], Iterator[GaugeMetricFamily]]) -> list[GaugeMetricFamily]:
    try:
        return list(read())
    except (RadnodeError, OSError):
        return []
