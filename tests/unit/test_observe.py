"""The operational log: one JSON object a line, and no way for patient data to get in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.processors import JSONRenderer

from radnode.errors import StoreUnavailable
from radnode.observe import KEYS, MAX_TEXT, allow, describe

SECRET = "Secret^Name 4711"  # noqa: S105 (a patient, not a password)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text())


def logged(code: str) -> list[dict[str, Any]]:
    """Run code in a process with a configured log and return the lines; it may print nothing else."""
    prologue = f"import radnode.observe as observe\nlog = observe.configure('test')\nSECRET = {SECRET!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", prologue + code], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert SECRET not in done.stdout
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line["role"] == "test" and line["timestamp"].endswith("Z") for line in lines)
    return lines


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(sorted(KEYS)), VALUES))
def test_any_entry_is_one_line_of_strict_json_with_allowed_keys_alone(entry: dict[str, Any]) -> None:
    line = JSONRenderer()(None, "info", allow(None, "info", dict(entry)))
    assert isinstance(line, str)
    assert "\n" not in line
    assert line.isascii()
    parsed = json.loads(line, parse_constant=pytest.fail)
    assert set(parsed) <= KEYS
    if set(entry) - KEYS:
        assert parsed["dropped"] == sorted(set(entry) - KEYS)


def test_unknown_key_is_named_and_its_value_is_not() -> None:
    found = allow(None, "info", {"event": "x", "patient_name": SECRET, "exc_info": ValueError(SECRET)})
    assert found == {"event": "x", "dropped": ["exc_info", "patient_name"]}


def test_value_that_is_an_object_is_named_by_its_type() -> None:
    found = allow(None, "info", {"message": ValueError(SECRET), "error": {"a": SECRET}, "peer": SECRET.encode()})
    assert found == {"message": "ValueError", "error": "dict", "peer": "bytes"}


def test_every_line_begins_with_when_how_grave_what_and_who() -> None:
    (line,) = logged("log.warning('event', count=1, ae='A')")
    assert list(line) == ["timestamp", "level", "event", "role", "count", "ae"]


def test_text_is_cut() -> None:
    assert len(allow(None, "info", {"message": "x" * 10_000})["message"]) == MAX_TEXT


def test_only_our_own_errors_have_their_sentence_described() -> None:
    assert describe(StoreUnavailable("The disk is full."))["message"] == "The disk is full."
    assert describe(ValueError(SECRET)) == {"error": "ValueError"}


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError(SECRET)",
        "import threading\nt = threading.Thread(target=lambda: [].index(SECRET)); t.start(); t.join()",
        "class Late:\n    def __del__(self): raise ValueError(SECRET)\nLate()",
        "try:\n    raise KeyError(SECRET)\nexcept KeyError as error:\n    raise RuntimeError(SECRET) from error",
    ],
    ids=["main", "thread", "destructor", "chained"],
)
def test_text_of_an_uncaught_exception_is_never_printed(code: str) -> None:
    (line,) = logged(code)
    assert (line["event"], line["level"]) == ("uncaught_error", "critical")
    assert line["error"] in ("ValueError", "RuntimeError")


def test_text_of_library_logs_and_warnings_is_never_printed() -> None:
    lines = logged(
        "import logging, warnings\n"
        "for name in ('pydicom', 'pynetdicom.events', 'sqlalchemy.engine', ''):\n"
        "    for level in (10, 20, 30, 40, 50):\n"
        "        logging.getLogger(name).log(level, 'cannot read %s', SECRET)\n"
        "try:\n    raise ValueError(SECRET)\nexcept ValueError:\n    logging.getLogger('pydicom').exception(SECRET)\n"
        "warnings.warn(SECRET)\n"
        "from pydicom.uid import UID; UID(SECRET)\n"
    )
    assert {line["event"] for line in lines} == {"library_message"}
    assert len(lines) == 9
    assert {line["logger"] for line in lines} == {"pydicom", "pynetdicom.events", "sqlalchemy.engine", "root"}


def test_hostile_values_stay_one_line() -> None:
    (line,) = logged(
        "log.info('event', ae='A\\r\\n{\"event\":\"forged\"}\\x1b[2J\\u2028\\ud800%s{0}', count=float('nan'))"
    )
    assert line["event"] == "event"
    assert line["count"] == "float"
