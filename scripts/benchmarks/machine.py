"""What the measurements ran on, without the name of the machine: for the head of a report."""

from __future__ import annotations

import os
import platform
import re
import shutil
import ssl
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks import ROOT
from benchmarks.servers import ORTHANC, STORESCP
from radnode import __version__


def describe() -> list[str]:
    """Return one line for the machine and one for each program that is measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory, Linux {platform.release()}",
        f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, pynetdicom {version('pynetdicom')}, "
        f"pydicom {version('pydicom')}",
        f"radnode {__version__}{_commit()}",
        f"dcmtk {_program(STORESCP)}, Orthanc {_program(ORTHANC)}",
    ]


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _commit() -> str:
    """Return the commit that is checked out, and whether files differ from it."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return ""
    said = [
        subprocess.run([git, "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()
        for arguments in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "radnode"))
    ]
    return f", commit {said[0]}" + (" and changes" if said[1] else "")


def _program(path: str) -> str:
    if not Path(path).exists():
        return "absent"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout)
    return found[0] if found else "of unknown version"
