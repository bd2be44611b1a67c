"""The listener with a thread that looks where the others are: python -m benchmarks.sampled_role CONFIG OUT.

SIGUSR1 begins the sample; at the end the counts are written to OUT as JSON. A thread is seen where it runs or waits
(a lock, the disk, the next bytes), so shares are of wall-clock time, not of CPU.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks import ROOT

_EVERY_SECONDS = 0.001
_OURS = str(ROOT / "radnode")


class Sampler:
    """Counts (thread, our function, function it is in) from SIGUSR1 on until told to stop.

    The signal is blocked in every thread and waited for by this one, so it is made before any library starts threads:
    a main thread that sleeps on a lock may be late to notice a signal that another thread took.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._ended = threading.Event()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        threading.Thread(target=self._look, name="sampler", daemon=True).start()

    def end(self) -> list[tuple[str, str, str, int]]:
        """Stop and return what was seen."""
        self._ended.set()
        return [(*where, count) for where, count in self._counts.most_common()]

    def _look(self) -> None:
        signal.sigwait([signal.SIGUSR1])
        while not self._ended.wait(_EVERY_SECONDS):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                name = re.sub(r"[\d-]+.*", "", names.get(ident, "?"))
                ours = _ours(frame)
                if name not in ("sampler", "MainThread") and not ours.startswith("process:"):
                    self._counts[(name, ours, _named(frame))] += 1


def _ours(frame: FrameType | None) -> str:
    """Return the innermost function of radnode in a stack."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS):
            return _named(frame)
        frame = frame.f_back
    return ""


def _named(frame: FrameType) -> str:
    path = frame.f_code.co_filename
    place = path.removeprefix(_OURS + "/") if path.startswith(_OURS) else Path(path).name
    return f"{place.removesuffix('.py')}:{frame.f_code.co_qualname}"


if __name__ == "__main__":
    sampler = Sampler()
    from radnode.process import main

    code = main(["intake", sys.argv[1]])
    Path(sys.argv[2]).write_text(json.dumps(sampler.end()))
    sys.exit(code)
