"""The operational log: JSON lines on stdout that cannot hold patient data.

Only the keys of `KEYS` pass; any other key is left out and its name (never its value) is listed under `dropped`.
Text is cut to `MAX_TEXT`. Libraries log through `logging`: of their records only logger and level pass, because their
messages quote values. Uncaught exceptions are reported by class and place, for the same reason.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import traceback
import warnings
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

from radnode.errors import RadnodeError

KEYS = frozenset(
    {"timestamp", "level", "event", "role", "pid", "ae", "called", "peer", "address", "certificate", "association"}
    | {"patient", "study", "series", "instance", "result", "job", "model", "outcome", "reason", "destination"}
    | {"duration_ms", "status", "attempt", "count", "bytes", "rule", "advice", "error", "message", "place", "version"}
    | {"port", "failed", "device", "retry_seconds", "seconds", "exit", "logger", "dropped"}
    | {"leases", "stretches", "sockets", "entries", "torn_bytes"}
)
FIRST = ("timestamp", "level", "event", "role")  # in every line, before everything else
MAX_TEXT = 300

Log = structlog.typing.FilteringBoundLogger


def configure(role: str) -> Log:
    """Set up this process's log and silence everything that could bypass it; return the logger."""

    def name_role(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        entry.setdefault("role", role)
        return entry

    structlog.configure(
        processors=[
            name_role,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            allow,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    quiet()
    logging.getLogger().handlers[:] = [_LibraryHandler(level=logging.ERROR)]
    sys.excepthook = _report_uncaught
    sys.unraisablehook = lambda args: _report_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    threading.excepthook = lambda args: _report_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    return logger()


def quiet() -> None:
    """Silence what libraries would print: their messages quote the values they complain about."""
    warnings.simplefilter("ignore")
    logging.getLogger().handlers[:] = [logging.NullHandler()]


def logger() -> Log:
    """Return the process's logger."""
    log: Log = structlog.get_logger()
    return log


def allow(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let through only what the allow-list names, what every line has first (a structlog processor)."""
    known = [key for key in dict.fromkeys((*FIRST, *entry)) if key in KEYS]
    allowed = {key: _value(entry[key]) for key in known if entry.get(key) is not None}
    if unknown := sorted(set(entry) - KEYS):
        allowed["dropped"] = unknown
    return allowed


def describe(error: BaseException) -> dict[str, str]:
    """Return the loggable part of an exception: its class, its place in our code, and our own sentence."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "radnode" in frame.filename]
    described = {"error": type(error).__name__}
    if isinstance(error, RadnodeError):
        described["message"] = str(error)
    if frames:
        described["place"] = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}"
    return described


def _value(value: Any) -> Any:
    """Return a value that may be printed: text is cut, what is neither text nor number is named by its type."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return type(value).__name__


class _LibraryHandler(logging.Handler):
    """Says that a library complained, without what it said."""

    def emit(self, record: logging.LogRecord) -> None:
        logger().warning("library_message", logger=record.name, place=f"{record.filename}:{record.lineno}")


def _report_uncaught(kind: type[BaseException], error: BaseException | None, _trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt) or error is None:
        return
    logger().critical("uncaught_error", **describe(error))
