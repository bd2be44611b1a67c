"""The deadline that the kernel keeps: it ends a process that hangs, and nobody else."""

from __future__ import annotations

import signal
import subprocess
import sys

HANGS = "import time; from radnode.detect.deadline import deadline\n"


def ended(program: str) -> int:
    """Run a program of a few lines that would last a minute; return its exit status, negative for a signal."""
    return subprocess.run([sys.executable, "-c", HANGS + program], timeout=30, check=False).returncode


def test_block_that_takes_longer_ends_the_process() -> None:
    assert ended("with deadline(0.2): time.sleep(60)") == -signal.SIGALRM


def test_block_that_ends_in_time_is_not_ended_later() -> None:
    assert ended("with deadline(0.2): pass\ntime.sleep(0.5)") == 0


def test_inner_deadline_that_is_nearer_counts() -> None:
    assert ended("with deadline(60):\n with deadline(0.2): time.sleep(60)") == -signal.SIGALRM


def test_outer_deadline_counts_within_an_inner_one_and_after_it() -> None:
    assert ended("with deadline(0.2):\n with deadline(60): time.sleep(60)") == -signal.SIGALRM
    assert ended("with deadline(0.5):\n with deadline(60): pass\n time.sleep(60)") == -signal.SIGALRM


def test_block_that_raises_is_over() -> None:
    program = "try:\n with deadline(0.2): raise ValueError\nexcept ValueError: time.sleep(0.5)"
    assert ended(program) == 0
