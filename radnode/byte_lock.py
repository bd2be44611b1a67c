"""Locks on single bytes of a file, one holder each among processes (fcntl(2), open file description locks).

A lock belongs to the open file, not to the process: who opens the file twice competes with itself, and through one
descriptor a byte can be locked again and again, so that its threads must agree among themselves. The kernel frees
what a process held when it is gone, however it ended. What the bytes hold does not matter, nor whether they are there.
"""

from __future__ import annotations

import fcntl
import os
import struct

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2)


def lock(file: int, byte: int) -> bool:
    """Lock one byte; False when another open file has it.

    Raises:
        OSError: the file system has no such locks, or no more of them.
    """
    try:
        _ask(file, fcntl.F_OFD_SETLK, byte, fcntl.F_WRLCK)
    except BlockingIOError:
        return False
    return True


def unlock(file: int, byte: int) -> None:
    """Give one byte back.

    Raises:
        OSError: as for `lock`.
    """
    _ask(file, fcntl.F_OFD_SETLK, byte, fcntl.F_UNLCK)


def is_locked(file: int, byte: int) -> bool:
    """Whether another open file has this byte.

    Raises:
        OSError: as for `lock`.
    """
    found = _ask(file, fcntl.F_OFD_GETLK, byte, fcntl.F_WRLCK)
    return bool(_FLOCK.unpack_from(found)[0] != fcntl.F_UNLCK)


def _ask(file: int, what: int, byte: int, kind: int) -> bytes:
    return fcntl.fcntl(file, what, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
