"""The decoding child: what happens in it stays in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from radnode.detect.decoding import DecoderChild
from radnode.detect.manifest import InputSpec
from radnode.detect.pixels import PixelImage, decode_pixels, prepare
from radnode.errors import DetectionError
from radnode.model import Reason

MODULE = """
import ctypes, os, sys, time
import numpy as np
from radnode.detect.pixels import PixelImage, decode_pixels

def obey(content):
    match content:
        case b"crash":
            ctypes.string_at(0)
        case b"hang":
            time.sleep(60)
        case b"hoard":
            bytearray(8 << 30)
        case b"torch?":
            return PixelImage(np.full((1, 1), float("torch" in sys.modules), np.float32))
        case b"pid":
            return PixelImage(np.full((1, 1), os.getpid(), np.float32))
    return decode_pixels(content)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DecoderChild:
    (tmp_path / "obedient_decoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import obedient_decoder  # noqa: PLC0415 (made by this fixture)

    return DecoderChild(timeout_seconds=5.0, decode=obedient_decoder.obey)


def image_bytes(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def number(image: PixelImage) -> float:
    return float(image.pixels[0, 0])


def test_child_gives_what_decode_pixels_gives() -> None:
    content = image_bytes("CT_small.dcm")
    here = decode_pixels(content)
    with DecoderChild(timeout_seconds=10.0) as child:
        there = child.decode(content)
        pid = child.pid
        child.decode(content)
        assert child.pid == pid
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (here.spacing, here.spacing_at) == (there.spacing, there.spacing_at)
    assert here.spacing_at == "patient"


def test_reduced_image_gives_the_same_tensor_through_a_smaller_pipe() -> None:
    content = image_bytes("CT_small.dcm")
    spec = InputSpec(size=32, percentiles=(1.0, 99.0), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    here = decode_pixels(content)
    with DecoderChild(timeout_seconds=10.0, reduce_to=32) as child:
        there = child.decode(content)
    assert here.pixels.shape == (128, 128)
    assert there.pixels.shape == (64, 64)
    assert (there.rows, there.columns, there.spacing) == (128, 128, here.spacing)
    (one, geometry), (two, other) = prepare(here, spec), prepare(there, spec)
    np.testing.assert_array_equal(one, two)
    assert geometry == other


def test_reasons_cross_the_pipe_and_the_child_lives_on() -> None:
    with DecoderChild(timeout_seconds=10.0) as child:
        with pytest.raises(DetectionError) as caught:
            child.decode(b"noise")
        pid = child.pid
        assert caught.value.reason is Reason.PIXELS_UNDECODABLE
        with pytest.raises(DetectionError) as caught:
            child.decode(image_bytes("examples_palette.dcm"))
        assert caught.value.reason is Reason.UNSUPPORTED_PHOTOMETRIC
        assert child.pid == pid


def test_crash_hang_and_hoarding_cost_one_image_each_and_never_the_parent(child: DecoderChild) -> None:
    good = image_bytes("MR_small.dcm")
    with child:
        assert number(child.decode(b"torch?")) == 0.0
        with pytest.raises(DetectionError) as caught:
            child.decode(b"crash")
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert child.decode(good).rows == 64
        with pytest.raises(DetectionError) as caught:
            child.decode(b"hoard")
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert child.decode(good).rows == 64
        child._timeout = 0.3
        began = time.monotonic()
        with pytest.raises(DetectionError) as caught:
            child.decode(b"hang")
        assert caught.value.reason is Reason.DECODER_TIMEOUT
        assert time.monotonic() - began < 3
        child._timeout = 5.0
        assert child.decode(good).rows == 64


def test_child_killed_from_outside_is_replaced(child: DecoderChild) -> None:
    with child:
        child.start()
        pid = child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert child.decode(image_bytes("MR_small.dcm")).rows == 64
        assert child.pid != pid


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "hanging"])
def test_child_dies_with_a_parent_that_is_killed(tmp_path: Path, busy: bool) -> None:
    (tmp_path / "obedient_decoder.py").write_text(MODULE)
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent(f"""
        import threading, time
        import obedient_decoder
        from radnode.detect.decoding import DecoderChild
        if __name__ == "__main__":
            child = DecoderChild(timeout_seconds=1.0, decode=obedient_decoder.obey)
            child.start()
            if {busy}:
                threading.Thread(target=child.decode, args=(b"hang",), daemon=True).start()
                time.sleep(0.3)
            print(child.pid, flush=True)
            time.sleep(60)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
