"""For every tier: which tests stay together when several workers share them; in CI a skipped test fails the run."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
from support.workers import SHARED, Sharing, group, turn

# How long an example takes says more about the machine than about the code: goals of speed live in scripts/bench.
hypothesis.settings.register_profile("radnode", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("radnode")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, bring the tests into their turn; hold `support.workers` to the fixtures that they really share.

    Raises:
        UsageError: a module uses a node of the session and does not stand beside the others that do.
    """
    for item in items:
        for fixture in SHARED.keys() & set(getattr(item, "fixturenames", ())):
            if not group(item.nodeid).startswith(fixture):
                raise pytest.UsageError(f"{item.path.stem} uses {fixture}: name it in support/workers.py.")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn(item.nodeid))


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("RADNODE_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line(f"{len(reporter.stats['skipped'])} skipped, and RADNODE_NO_SKIPS is set", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
