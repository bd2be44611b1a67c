"""Other people's validators, as they are installed here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_JAVA_FLAGS = (
    # PixelMed's rules are larger than what Java 17 compiles by default.
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-Xss64m",
)
_JARS = Path("/usr/share/java")  # of Debian's libpixelmed-java
_BATCH = Path(__file__).with_name("ValidateReports.java")


def has_dsrdump() -> bool:
    """Is dcmtk's dsrdump here?"""
    return shutil.which("dsrdump") is not None


def has_pixelmed() -> bool:
    """Is PixelMed's toolkit here, with a JDK that runs a source file?"""
    return (_JARS / "pixelmed.jar").exists() and shutil.which("javac") is not None


def dciodvfy(path: Path) -> tuple[int, list[str]]:
    """Exit status and Error and Warning lines of David Clunie's dciodvfy."""
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if line.startswith(("Error", "Warning"))]


def dcentvfy(paths: Sequence[Path]) -> list[str]:
    """Error lines of dcentvfy, which compares patient, study and references between files."""
    done = subprocess.run(["dcentvfy", *paths], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def dsrdump(path: Path) -> tuple[int, str]:
    """Exit status and output of dcmtk's dsrdump, which checks the value types and relationships of the tree."""
    done = subprocess.run(["dsrdump", "-Er", "+Pt", path], capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def pixelmed(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Error and Warning lines of PixelMed's DicomSRValidator, which knows the templates; one JVM for all files."""
    command = ["java", *_JAVA_FLAGS, "-cp", f"{_JARS}/*", _BATCH, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines: dict[Path, list[str]] = {}
    current: list[str] = []
    complete = 0
    for line in done.stdout.splitlines():
        if line.startswith("File: "):
            current = lines.setdefault(Path(line.removeprefix("File: ")), [])
        elif line.startswith(("Error", "Warning")):
            current.append(line)
        complete += line == "IOD validation complete"
    if complete != len(paths):
        raise RuntimeError(f"PixelMed validated {complete} of {len(paths)} files.")
    return lines
