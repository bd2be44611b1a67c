"""For every tier: where `RADNODE_NO_SKIPS` is set (CI), a skipped test fails the run."""

from __future__ import annotations

import os

import hypothesis
import pytest

# How long an example takes says more about the machine than about the code: goals of speed live in scripts/bench.
hypothesis.settings.register_profile("radnode", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("radnode")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("RADNODE_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line(f"{len(reporter.stats['skipped'])} skipped, and RADNODE_NO_SKIPS is set", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
