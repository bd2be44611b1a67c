"""Named places where a test ends or freezes this process, to see what a crash just there leaves.

Nothing is looked up unless the environment variable `RADNODE_FAILPOINTS` names a folder. There, a file with the name of
a place arms it, for the first process that comes by and once; it holds the signal that this process then sends itself
(KILL, STOP). The file is renamed to `PLACE.PID` first, so that who armed it sees who was hit. Beside each place stands
its step in docs/life-of-an-image.md: of an image (3 to 16), of a start, of a series (S), of a commitment that a peer
asks for (C).
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Final

VARIABLE: Final = "RADNODE_FAILPOINTS"
PLACES: Final = {
    "data-arrives": "3",
    "image-identified": "4",
    "study-key-made": "5",
    "object-begun": "6",
    "object-written": "6",
    "object-durable": "6",
    "arrival-uncommitted": "7",
    "image-committed": "7",
    "duplicate-compared": "7",
    "image-answered": "8",
    "analysis-leased": "9",
    "images-decoded": "10",
    "image-detected": "10",
    "report-composed": "11",
    "findings-sealed": "12",
    "result-sealed": "12",
    "result-uncommitted": "13",
    "result-committed": "13",
    "delivery-leased": "14",
    "report-sent": "14",
    "delivery-uncommitted": "15",
    "delivery-committed": "15",
    "object-promised": "15a",
    "transaction-named": "15b",
    "commitment-asked": "15b",
    "ask-counted": "15c",
    "asked-given-back": "15c",
    "answer-uncommitted": "15d",
    "answer-committed": "15d",
    "trail-appended": "16",
    "trail-signed": "16",
    "start-repairing": "start",
    "series-uncommitted": "S3",
    "series-completed": "S3",
    "series-leased": "S4",
    "series-detected": "S4",
    "request-sealed": "C2",
    "request-kept": "C3",
    "request-judged": "C4",
    "request-answered": "C5",
    "request-closed": "C6",
}

# Those in commands, which no serving node comes by.
COMMAND_PLACES: Final = frozenset(
    {"rotation-begun", "keys-rewrapped", "key-retired", "study-purged", "objects-removed"}
)

_folder = os.environ.get(VARIABLE)


def reach(place: str) -> None:
    """Say that this process is at one of these places; where it is armed, this may be the last thing it does."""
    if _folder is not None:
        _be_hit(Path(_folder, place))


def _be_hit(armed: Path) -> None:
    taken = armed.with_name(f"{armed.name}.{os.getpid()}")
    try:
        name = armed.read_text().strip()
        armed.rename(taken)
    except FileNotFoundError:  # not armed, or another thread or process was quicker
        return
    signal.pthread_kill(threading.get_ident(), signal.Signals[f"SIG{name}"])  # so that this thread goes no step further
