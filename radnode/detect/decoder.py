"""The decoding child's side: `python -m radnode.detect.decoder`, which `radnode.detect.decoding` starts.

It answers over the inherited pipe, never imports torch, is bounded in memory, and ends at end of file, which is what
a parent that was killed leaves behind; one that hangs in a codec just then is ended by its own alarm. What it sends
is numbers, not a pickle: a codec that was taken over by a malicious image cannot make its parent run anything.
"""

from __future__ import annotations

import pkgutil
import resource
import signal
import struct
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from radnode.detect.display import view
from radnode.detect.pixels import PixelImage, SpacingPlane, reduce
from radnode.errors import DetectionError

READY = b"ready"
REQUEST = struct.Struct(">II")  # sizes to reduce to and of a view, 0 for none; the file follows as its own message
HEADER = struct.Struct(">IIIIIddB")  # source rows and columns, factor, rows, columns, mm, index into SPACING_AT
VIEW = struct.Struct(">II?dd")  # rows, columns, whether a window follows, its center and width; then the pixels
DECLINED = b"!"  # begins the other answer, a Reason; no header begins so, as rows stay under 2**29
SPACING_AT: tuple[SpacingPlane | None, ...] = (None, "patient", "detector")

Decode = Callable[[bytes], PixelImage]


def main(arguments: list[str]) -> None:
    """Answer one image after the other until the parent is gone."""
    descriptor, memory_bytes, seconds, decode = arguments
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to a whole group; the parent closes the pipe
        signal.signal(name, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels in the clear
    function: Decode = pkgutil.resolve_name(decode)
    pipe = Connection(int(descriptor))
    try:
        pipe.send_bytes(READY)
        while True:
            reduce_to, side = REQUEST.unpack(pipe.recv_bytes())
            part10 = pipe.recv_bytes()
            signal.setitimer(signal.ITIMER_REAL, float(seconds))  # SIGALRM ends the process, whatever a codec holds
            for part in _answer(part10, function, reduce_to, side):
                pipe.send_bytes(part)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, OSError):
        return


def _answer(part10: bytes, decode: Decode, reduce_to: int, side: int) -> list[bytes | memoryview]:
    """Return header, float32 pixels and the view that was asked for, or the reason."""
    views: list[bytes | memoryview] = []
    try:
        image = decode(part10)
        if side:
            shown = view(image, side)
            window = shown.window or (0.0, 0.0)
            views.append(VIEW.pack(shown.rows, shown.columns, shown.window is not None, *window) + shown.pixels)
        if reduce_to:
            image = reduce(image, reduce_to)
    except DetectionError as error:
        return [DECLINED + error.reason.value.encode("ascii")]
    row_mm, column_mm = image.spacing or (0.0, 0.0)
    plane = SPACING_AT.index(image.spacing_at)
    shape = image.rows, image.columns, image.factor, *image.pixels.shape
    header = HEADER.pack(*shape, row_mm, column_mm, plane)
    return [header, np.ascontiguousarray(image.pixels, dtype="<f4").data.cast("B"), *views]


if __name__ == "__main__":
    main(sys.argv[1:])
