"""A warm child process that decodes pixels, so that a crash in a codec kills the child and nothing else.

Objects go to the child and pixels come back over one pipe; nothing touches the disk. The child is an interpreter of
its own (`radnode.detect.decoder`) that never imports the caller's program.
"""

from __future__ import annotations

import multiprocessing
import os
import struct
import subprocess
import sys
from multiprocessing.connection import Connection
from types import TracebackType

import numpy as np

from radnode.detect.decoder import DECLINED, HEADER, REQUEST, SPACING_AT, VIEW
from radnode.detect.pixels import MAX_PIXELS, PixelImage
from radnode.errors import DecoderUnavailable, DetectionError
from radnode.model import Reason, View

MEMORY_BYTES = 4 << 30
START_SECONDS = 60.0
ALARM_SECONDS = 2.0  # after the time-out, by when the parent would have killed the child


def child_environment() -> dict[str, str]:
    """Return the environment of an interpreter that finds modules where this one finds them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}


class DecoderChild:
    """One child process, started at the first call and again after a crash or a time-out. One caller at a time.

    `decode` names what the child runs on each image, an importable "module:function".
    """

    def __init__(
        self,
        timeout_seconds: float,
        memory_bytes: int = MEMORY_BYTES,
        decode: str = "radnode.detect.pixels:decode_pixels",
    ) -> None:
        self._timeout = timeout_seconds
        self._memory = memory_bytes
        self._decode = decode
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the child if there is none, and wait until it is warm.

        Raises:
            DecoderUnavailable: it does not come up.
        """
        self._running()

    def decode(self, part10: bytes, reduce_to: int | None = None, view_side: int = 0) -> PixelImage:
        """Return the image that `decode_pixels` makes of a DICOM file, made in the child.

        With `reduce_to`, the input size of the detectors, a larger image comes back reduced: what they say is the
        same and the pipe carries a fraction. With `view_side` it has a view whose longer side is that long.

        Raises:
            DetectionError: what `decode_pixels` raises; DECODER_CRASHED when the child died on it;
                DECODER_TIMEOUT when it took longer than `timeout_seconds` and was killed.
            DecoderUnavailable: the child does not come up, whatever the image.
        """
        pipe = self._running()
        try:
            answer = self._ask(pipe, part10, reduce_to, view_side)
        except TimeoutError as error:
            self.close()
            raise DetectionError(Reason.DECODER_TIMEOUT) from error
        except (OSError, EOFError, ValueError, LookupError, struct.error) as error:
            self.close()
            raise DetectionError(Reason.DECODER_CRASHED) from error
        except BaseException:  # Ctrl-C: an answer left in the pipe would be taken for that of the next image
            self.close()
            raise
        if isinstance(answer, Reason):
            raise DetectionError(answer)
        return answer

    def close(self) -> None:
        """End the child; the next call starts another."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> DecoderChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> Connection:
        """Return the pipe to a living child."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._pipe is None:
            ours, theirs = multiprocessing.Pipe(duplex=True)
            try:
                with theirs:
                    self._process = self._spawn(theirs.fileno())
                self._receive(ours, START_SECONDS)
            except (OSError, EOFError) as error:
                ours.close()
                self.close()
                raise DecoderUnavailable(
                    "The decoding process does not start; look at this machine's memory and at the installation."
                ) from error
            self._pipe = ours
        return self._pipe

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        """Start the child's interpreter."""
        limits = str(self._memory), str(self._timeout + ALARM_SECONDS)
        return subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-P", "-m", "radnode.detect.decoder", str(descriptor), *limits, self._decode],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what a codec prints may hold patient data
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            pass_fds=[descriptor],
        )

    def _ask(self, pipe: Connection, part10: bytes, reduce_to: int | None, view_side: int) -> PixelImage | Reason:
        """Return the child's answer; what else a child may send that was taken over raises."""
        pipe.send_bytes(REQUEST.pack(reduce_to or 0, view_side))
        pipe.send_bytes(part10)
        answer = self._receive(pipe, self._timeout)
        if answer[:1] == DECLINED:
            return Reason(answer[1:].decode("ascii"))
        source_rows, source_columns, factor, rows, columns, row_mm, column_mm, at = HEADER.unpack(answer)
        pixels = np.frombuffer(self._receive(pipe, self._timeout), dtype="<f4").reshape(rows, columns)
        plane = SPACING_AT[at]
        spacing = None if plane is None else (row_mm, column_mm)
        view = self._receive_view(pipe, source_rows, source_columns) if view_side else None
        return PixelImage(pixels, spacing, plane, (source_rows, source_columns), factor, view=view)

    def _receive_view(self, pipe: Connection, source_rows: int, source_columns: int) -> View:
        """Return the child's view of the image; ValueError or struct.error when it is none."""
        answer = self._receive(pipe, self._timeout)
        rows, columns, has_window, *window = VIEW.unpack_from(answer)
        pixels = answer[VIEW.size :]
        if not pixels or len(pixels) != rows * columns:
            raise ValueError("a view of another size")
        center, width = window
        return View(rows, columns, source_rows, source_columns, pixels, (center, width) if has_window else None)

    def _receive(self, pipe: Connection, seconds: float) -> bytes:
        """Return the child's next message; TimeoutError when it is silent, EOFError or OSError when it is dead."""
        if not pipe.poll(seconds):
            raise TimeoutError
        return pipe.recv_bytes(4 * MAX_PIXELS)
