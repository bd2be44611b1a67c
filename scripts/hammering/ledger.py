"""The ledger: what every modality sent and what it was answered, kept outside the node and on the disk."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hammering.images import Image

ACKNOWLEDGED = ("Success", "Warning")  # how storescu words the statuses by which an SCP takes an object


class Ledger:
    """Every C-STORE and every storage commitment of this run, shared by the threads of the modalities."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8")
        self._lock = threading.Lock()
        self._pushing = 0
        self.images: dict[str, Image] = {}  # everything that was offered, by SOP Instance UID
        self.acknowledged: set[str] = set()
        self.sent: Counter[str] = Counter()  # how often each SOP instance was offered
        self.answers: Counter[str] = Counter()  # what was said, "no answer" where the association ended before
        self.broken_off = 0  # associations that did not end by release
        self.asked: dict[str, frozenset[str]] = {}  # what the node said it would commit, by Transaction UID
        self.committed: dict[str, frozenset[str]] = {}  # what it then said it has
        self.uncommitted: set[str] = set()  # what it said it has not, of what it had acknowledged

    def record(self, image: Image, ae_title: str, answer: str | None) -> None:
        """Write down one C-STORE; `answer` is storescu's wording of the status, None where none came."""
        said = answer or "no answer"
        with self._lock:
            self._write(ae=ae_title, instance=image.uid, sha256=image.digest, answer=said)
            self.images[image.uid] = image
            self.sent[image.uid] += 1
            self.answers[said] += 1
            if said.startswith(ACKNOWLEDGED):
                self.acknowledged.add(image.uid)

    def record_request(self, transaction: str, instances: frozenset[str]) -> None:
        """Write down that the node has promised an answer to this request for a commitment."""
        with self._lock:
            self._write(transaction=transaction, asked=sorted(instances))
            self.asked[transaction] = instances

    def record_commitment(self, transaction: str, committed: frozenset[str], failed: frozenset[str]) -> None:
        """Write down what the node says of a request; it may say so more than once."""
        with self._lock:
            self._write(transaction=transaction, committed=sorted(committed), failed=sorted(failed))
            self.committed[transaction] = committed
            self.uncommitted |= failed

    def break_off(self) -> None:
        """Count an association that the node ended, or never began."""
        with self._lock:
            self.broken_off += 1

    @property
    def pushing(self) -> bool:
        """Whether an association is open now."""
        return self._pushing > 0

    @property
    def unanswered(self) -> set[str]:
        """The requests to which an answer is owed: Transaction UIDs."""
        with self._lock:
            return {name for name, wanted in self.asked.items() if self.committed.get(name) != wanted}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Count an association that begins."""
        with self._lock:
            self._pushing += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Count its end."""
        with self._lock:
            self._pushing -= 1

    def _write(self, **entry: Any) -> None:
        """Add a line; with the lock held."""
        self._file.write(json.dumps({"at": round(time.time(), 3), **entry}) + "\n")
        self._file.flush()
