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

from radnode.detect import decoding
from radnode.detect.decoding import DecoderChild
from radnode.detect.manifest import InputSpec
from radnode.detect.pixels import PixelImage, decode_pixels, prepare
from radnode.errors import DecoderUnavailable, DetectionError
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

OBEY = "obedient_decoder:obey"


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DecoderChild:
    (tmp_path / "obedient_decoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return DecoderChild(timeout_seconds=5.0, decode=OBEY)


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
    with DecoderChild(timeout_seconds=10.0) as child:
        there = child.decode(content, reduce_to=32)
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
        from radnode.detect.decoding import DecoderChild
        child = DecoderChild(timeout_seconds=1.0, decode="{OBEY}")
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


# A caller's program without a guard, which leaves a mark each time it is run or imported.
UNGUARDED = """
import sys
from radnode.detect.decoding import DecoderChild
open(sys.argv[1], "a").write("ran ")
child = DecoderChild(timeout_seconds=10.0)
child.start()
print(child.pid is not None)
"""
IN_A_DAEMON = """
import multiprocessing
from radnode.detect.decoding import DecoderChild
def start():
    with DecoderChild(timeout_seconds=10.0) as child:
        child.start()
process = multiprocessing.get_context("fork").Process(target=start, daemon=True)
process.start()
process.join()
print(process.exitcode == 0)
"""


@pytest.mark.parametrize("way", ["file", "stdin", "string", "interactive", "package", "daemon"])
def test_child_starts_whatever_the_caller_is_and_never_runs_the_callers_program(tmp_path: Path, way: str) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "package").mkdir()
    for name in ("program.py", "package/__main__.py"):
        (tmp_path / name).write_text(UNGUARDED)
    arguments = {
        "file": ["program.py"],
        "stdin": ["-"],
        "string": ["-c", UNGUARDED],
        "interactive": ["-q", "-i", "-"],
        "package": ["-m", "package"],
        "daemon": ["-c", IN_A_DAEMON],
    }[way]
    done = subprocess.run(
        [sys.executable, *arguments, str(mark)],
        input=UNGUARDED,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
        check=False,
    )
    assert "True" in done.stdout, done.stderr
    if way != "daemon":
        assert mark.read_text() == "ran "


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_whole_group_does_not_end_the_child_on_an_image(child: DecoderChild, number: int) -> None:
    with child:
        child.start()
        pid = child.pid
        assert pid is not None
        os.kill(pid, number)
        time.sleep(0.1)
        assert child.decode(image_bytes("MR_small.dcm")).rows == 64
        assert child.pid == pid


@pytest.mark.parametrize("decode", ["no_such_module:decode", "radnode.detect.pixels:no_such_function"])
def test_child_that_does_not_come_up_is_trouble_of_this_node_and_no_finding_about_the_image(decode: str) -> None:
    with DecoderChild(timeout_seconds=5.0, decode=decode) as child:
        for attempt in (child.start, lambda: child.decode(b"noise")):
            with pytest.raises(DecoderUnavailable) as caught:
                attempt()
            assert caught.value.retry
            assert child.pid is None


def test_child_that_cannot_be_started_or_says_nothing_is_trouble_of_this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecoderChild(timeout_seconds=5.0) as child:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(DecoderUnavailable):
                child.start()
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "START_SECONDS", 0.0)
            with pytest.raises(DecoderUnavailable):
                child.start()
        assert child.decode(image_bytes("MR_small.dcm")).rows == 64


def test_interrupted_call_leaves_no_answer_behind_for_the_next_image(
    child: DecoderChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    with child:
        child.start()
        with monkeypatch.context() as patch:
            patch.setattr(child, "_receive", interrupt)
            with pytest.raises(KeyboardInterrupt):
                child.decode(image_bytes("CT_small.dcm"))
        assert child.decode(image_bytes("MR_small.dcm")).rows == 64


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
