"""A warm child process that decodes pixels, so that a crash in a codec kills the child and nothing else.

Objects go to the child and pixels come back over one pipe; nothing touches the disk. The child is started
afresh ("spawn"), never imports torch, is bounded in memory, and ends at end of file on its pipe, which is what
a parent that was killed leaves behind; one that hangs in a codec just then is ended by its own alarm. What
comes back is numbers, not a pickle: a codec that was taken over by a malicious image cannot make its parent
run anything.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType

import numpy as np

from radnode.detect.pixels import MAX_PIXELS, PixelImage, SpacingPlane, decode_pixels, reduce
from radnode.errors import DetectionError
from radnode.model import Reason

MEMORY_BYTES = 4 << 30
START_SECONDS = 60.0
ALARM_SECONDS = 2.0  # after the time-out, by when the parent would have killed the child
_HEADER = struct.Struct(">IIIIIddB")  # source rows and columns, factor, rows, columns, mm, index into _SPACING_AT
_DECLINED = b"!"  # begins the other answer, a Reason; no header begins so, as rows stay under 2**29
_SPACING_AT: tuple[SpacingPlane | None, ...] = (None, "patient", "detector")
_READY = b"ready"

Decode = Callable[[bytes], PixelImage]


class DecoderChild:
    """One child process, started at the first call and again after a crash or a time-out. One caller at a time.

    With `reduce_to`, the input size of the detectors in pixels, larger images come back reduced: what a detector
    says is the same and the pipe carries a fraction. `decode` is what the child runs, an importable function.
    """

    def __init__(
        self,
        timeout_seconds: float,
        reduce_to: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
        decode: Decode = decode_pixels,
    ) -> None:
        self._timeout = timeout_seconds
        self._memory = memory_bytes
        self._decode = decode
        self._reduce_to = reduce_to
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the child if there is none, and wait until it is warm.

        Raises:
            DetectionError: DECODER_CRASHED or DECODER_TIMEOUT when it does not come up.
        """
        self._running()

    def decode(self, part10: bytes) -> PixelImage:
        """Return the image that `decode_pixels` makes of a DICOM file, made in the child.

        Raises:
            DetectionError: what `decode_pixels` raises; DECODER_CRASHED when the child died on it;
                DECODER_TIMEOUT when it took longer than `timeout_seconds` and was killed.
        """
        pipe = self._running()
        try:
            pipe.send_bytes(part10)
        except (OSError, ValueError) as error:
            self.close()
            raise DetectionError(Reason.DECODER_CRASHED) from error
        answer = self._receive(pipe, self._timeout)
        if answer[:1] == _DECLINED:
            raise DetectionError(Reason(answer[1:].decode("ascii")))
        source_rows, source_columns, factor, rows, columns, row_mm, column_mm, at = _HEADER.unpack(answer)
        pixels = np.frombuffer(self._receive(pipe, self._timeout), dtype="<f4").reshape(rows, columns)
        plane = _SPACING_AT[at]
        spacing = None if plane is None else (row_mm, column_mm)
        return PixelImage(pixels, spacing, plane, (source_rows, source_columns), factor)

    def close(self) -> None:
        """End the child; the next call starts another."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.join()
            process.close()

    def __enter__(self) -> DecoderChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> Connection:
        """Return the pipe to a living child."""
        if self._process is not None and not self._process.is_alive():
            self.close()
        if self._pipe is None:
            ours, theirs = self._context.Pipe(duplex=True)
            process = self._context.Process(
                target=_serve,
                args=(theirs, self._memory, self._timeout + ALARM_SECONDS, self._decode, self._reduce_to),
                name="radnode-decoder",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._process, self._pipe = process, ours
            self._receive(ours, START_SECONDS)
        return self._pipe

    def _receive(self, pipe: Connection, seconds: float) -> bytes:
        """Return the child's next message; a silent or dead child is put away first."""
        try:
            if pipe.poll(seconds):
                return pipe.recv_bytes(4 * MAX_PIXELS)
        except (OSError, EOFError) as error:
            self.close()
            raise DetectionError(Reason.DECODER_CRASHED) from error
        self.close()
        raise DetectionError(Reason.DECODER_TIMEOUT)


def _serve(pipe: Connection, memory_bytes: int, seconds: float, decode: Decode, reduce_to: int | None) -> None:
    """Answer one object after the other until the parent is gone. Runs in the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes the pipe
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels in the clear
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)  # what a codec prints may hold patient data
    os.dup2(nowhere, 2)
    try:
        pipe.send_bytes(_READY)
        while True:
            part10 = pipe.recv_bytes()
            signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends the process, whatever a codec holds
            for part in _answer(part10, decode, reduce_to):
                pipe.send_bytes(part)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, OSError):
        return


def _answer(part10: bytes, decode: Decode, reduce_to: int | None) -> list[bytes | memoryview]:
    """Return header and float32 pixels, or the reason."""
    try:
        image = decode(part10)
        if reduce_to is not None:
            image = reduce(image, reduce_to)
    except DetectionError as error:
        return [_DECLINED + error.reason.value.encode("ascii")]
    row_mm, column_mm = image.spacing or (0.0, 0.0)
    plane = _SPACING_AT.index(image.spacing_at)
    shape = image.rows, image.columns, image.factor, *image.pixels.shape
    header = _HEADER.pack(*shape, row_mm, column_mm, plane)
    return [header, np.ascontiguousarray(image.pixels, dtype="<f4").data.cast("B")]
