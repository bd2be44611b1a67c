"""Which tests one worker runs, in their order, when several share them (pytest-xdist).

Its controller knows node ids alone; its own groups by mark do nothing under the newest pytest.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Fixtures of the whole session, and the modules that use them: every worker that meets one starts a node for it.
SHARED = {
    "clinic": ("test_end_to_end", "test_outcomes", "test_sloppy_films"),
    "target": (
        "test_audit_complete",
        "test_bad_input_association",
        "test_bad_input_commands",
        "test_bad_input_handshake",
        "test_bad_input_objects",
        "test_bad_input_pdus",
    ),
}
# Modules of slow tests that share nothing with each other.
SPREAD = (
    "test_audit_sequencer_crash",
    "test_bad_input_own_trouble",
    "test_bad_input_shutdown",
    "test_bench",
    "test_commitment",
    "test_crash_arrivals",
    "test_crash_listeners",
    "test_crash_series",
    "test_row_23_key_providers",
    "test_unanalysable",
)
_LANE = re.compile(r"[\[-](stock|fast|fast-lane|pynetdicom)[\]-]")


def group(node_id: str) -> str:
    """Return what stays together: what shares a node, else a module, in each lane; else the test itself."""
    path, _, test = node_id.partition("::")
    module = PurePath(path).stem
    if module in SPREAD:
        return node_id
    lane = _LANE.search(test)
    together = next((fixture for fixture, modules in SHARED.items() if module in modules), path)
    return f"{together} {lane[1]}" if lane else together


def turn(node_id: str) -> int:
    """Return what is done first: single slow tests, then nodes and peers, and what is quick fills the end."""
    path = PurePath(node_id.partition("::")[0])
    return 0 if path.stem in SPREAD else 1 if path.parent.name in ("peers", "crash") else 2


class Sharing(LoadScopeScheduling):
    """Gives each group to one worker, in the order in which the workers have collected them."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
