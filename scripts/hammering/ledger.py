"""The ledger: what every modality sent and what it was answered, kept outside the node and on the disk."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

ACKNOWLEDGED = ("Success", "Warning")  # how storescu words the statuses by which an SCP takes an object


class Ledger:
    """Every C-STORE of this run, shared by the threads of the modalities."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8")
        self._lock = threading.Lock()
        self._pushing = 0
        self.acknowledged: set[str] = set()
        self.sent: Counter[str] = Counter()  # how often each SOP instance was offered
        self.answers: Counter[str] = Counter()  # what was said, "no answer" where the association ended before
        self.broken_off = 0  # associations that did not end by release

    def record(self, uid: str, ae_title: str, answer: str | None) -> None:
        """Write down one C-STORE; `answer` is storescu's wording of the status, None where none came."""
        said = answer or "no answer"
        entry = {"at": round(time.time(), 3), "ae": ae_title, "instance": uid, "answer": said}
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            self.sent[uid] += 1
            self.answers[said] += 1
            if said.startswith(ACKNOWLEDGED):
                self.acknowledged.add(uid)

    def break_off(self) -> None:
        """Count an association that the node ended, or never began."""
        with self._lock:
            self.broken_off += 1

    @property
    def pushing(self) -> bool:
        """Whether an association is open now."""
        return self._pushing > 0

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
