"""A wall clock that a test sets while processes run: every Python process under `environment` reads it.

libfaketime cannot be used: with the monotonic clock left alone, as a real jump leaves it, it breaks `time.sleep`.
"""

from __future__ import annotations

import struct
from pathlib import Path

_OFFSET = struct.Struct("d")
_SITE = """
import datetime, mmap, struct, time

real, real_time, real_time_ns = datetime.datetime, time.time, time.time_ns
with open({path!r}, "rb") as file:
    offset = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

time.time = lambda: real_time() + struct.unpack("d", offset[:8])[0]
time.time_ns = lambda: real_time_ns() + int(struct.unpack("d", offset[:8])[0] * 1e9)

class AnyDatetime(type(real)):
    def __instancecheck__(cls, value):
        return isinstance(value, real)

class Shifted(real, metaclass=AnyDatetime):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(time.time(), tz)

datetime.datetime = Shifted
"""


class WallClock:
    """The clock of the processes that are started with `environment`; it goes on from what it is set to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._offset = folder / "offset"
        self._offset.write_bytes(_OFFSET.pack(0.0))
        (folder / "sitecustomize.py").write_text(_SITE.format(path=str(self._offset)))
        self.environment = {"PYTHONPATH": str(folder)}

    def shift(self, seconds: float) -> None:
        """Set it so many seconds away from the machine's, in all processes at once."""
        with self._offset.open("r+b", buffering=0) as file:
            file.write(_OFFSET.pack(seconds))
