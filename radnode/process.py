"""One role as a process: `python -m radnode.process ROLE CONFIG [NUMBER PROCESSES DESCRIPTOR...]`.

The supervisor starts it. Where several processes have the role, NUMBER of PROCESSES is which one this is, and the
DESCRIPTORs are the ports that they share (`radnode.listening`).

Only the worker decodes pixels. In any other role the codecs, which pydicom imports wherever it finds them, are not even
loaded: native code has no business where strangers' bytes come in, and a listener is a third smaller without.

Standard input is a pipe that only the supervisor holds open: its end means the supervisor is gone, however it died,
and the role stops too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from radnode.configuration import load_settings
from radnode.errors import RadnodeError
from radnode.listening import Endpoints, Place
from radnode.observe import configure, describe

CODECS = ("PIL", "gdcm", "jpeg_ls", "libjpeg", "numpy", "openjpeg", "pylibjpeg", "rle")
GRACE_SECONDS = 5.0  # beyond the drain deadline, before a role that does not end is ended


def main(arguments: list[str]) -> int:
    """Run one role until SIGTERM or until the supervisor is gone; return the exit code."""
    role, config, *rest = arguments
    os.umask(0o077)
    if role != "worker":
        for name in CODECS:
            sys.modules[name] = None  # type: ignore[assignment]  # importing it raises an ImportError from now on
    from radnode.node import Node  # noqa: PLC0415 (these import pydicom)
    from radnode.roles import ROLES  # noqa: PLC0415

    log = configure(role)
    stop = threading.Event()
    try:
        settings = load_settings(Path(config))
        node = Node(settings, _place(*map(int, rest)))

        def end(*_: object) -> None:
            stop.set()
            node.bell.ring(role)

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        deadline = settings.node.drain_seconds + GRACE_SECONDS
        threading.Thread(target=_follow_supervisor, args=(end, deadline), daemon=True).start()
        ROLES[role](node, stop)
    except RadnodeError as error:
        log.critical("role_failed", **describe(error))
        if sys.stderr.isatty():  # where both streams go to one file, it stays one JSON object a line
            print(f"radnode: {error}", file=sys.stderr)
        return error.exit_code
    log.info("stopped")
    return 0


def _place(number: int = 0, processes: int = 1, *descriptors: int) -> Place:
    """Return which process of its role this is, and what it shares with the others."""
    return Place(number, processes, Endpoints.inherit(descriptors) if descriptors else None)


def _follow_supervisor(end: Callable[[], None], deadline: float) -> None:
    """Wait for the end of standard input, then stop, and do not outlive the deadline."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    end()
    threading.Event().wait(deadline)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
