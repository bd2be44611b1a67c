"""The table and the pictures of a package that looks at whole series, on scans with outlines of LIDC readers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ct import figures
from ct.lidc import Match, match, read_nodules
from ct.scan import read_scan

from radnode.detect.package import Package
from radnode.detect.series_detector import SeriesDetector
from radnode.errors import DetectionError


@dataclass(frozen=True)
class Case:
    """One scan: name, number of slices, what became of its nodules, false findings, seconds that it took."""

    name: str
    slices: int
    matches: list[Match]
    false: int
    seconds: float


def evaluate(package: Package, data: Path, out: Path) -> list[Case]:
    """Print what the package says of each scan below a folder that has an XML file of its readers; write the pictures.

    Raises:
        SystemExit: there is none.
        DetectionError: the package gives no answer on one.
    """
    folders = sorted({path.parent for path in data.rglob("*.xml")})
    if not folders:
        raise SystemExit(f"No XML file of LIDC readers is below {data}.")
    out.mkdir(parents=True, exist_ok=True)
    detector = SeriesDetector(package, threads=1)
    cases = [_case(detector, folder, out) for folder in folders]
    print("| scan | readers' diameters (mm) | score | diameter (mm) | readings that hold its middle | overlap (IoU) |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        for found in case.matches:
            print(_row(case, found))
    every = [found for case in cases for found in case.matches]
    hit = [found for found in every if found.finding is not None]
    ratios = [found.ratio for found in hit]
    false = sum(case.false for case in cases) / len(cases)
    print(f"\n{len(hit)} of {len(every)} nodules found, {false:.2f} false a scan.")
    if ratios:
        near = sum(abs(ratio - 1) <= 0.1 for ratio in ratios)
        print(f"Diameters: median {np.median(ratios):.2f} of the readers', {near} of {len(ratios)} within 10 %.")
        same = [found.ratio_on_slice for found in hit]
        near = sum(abs(ratio - 1) <= 0.1 for ratio in same)
        print(f"On the slice that was measured: median {np.median(same):.2f}, {near} of {len(same)} within 10 %.")
    print(f"Slowest scan: {max(case.seconds for case in cases):.1f} s, decoding not counted.\n\nPictures: {out}")
    return cases


def _case(detector: SeriesDetector, folder: Path, out: Path) -> Case:
    scan = read_scan(folder)
    began = time.monotonic()
    answer = detector.detect(scan.volume)
    seconds = time.monotonic() - began
    if isinstance(answer, DetectionError):
        raise answer
    xml = next(folder.glob("*.xml"))
    nodules = read_nodules(xml, scan.volume.spacing)
    matches, false = match(nodules, answer.findings, scan.uids, scan.volume.spacing)
    for number, (readings, found) in enumerate(zip(nodules, matches, strict=True), 1):
        if found.finding is not None:
            figures.examples(scan, readings, found.finding, out / f"{folder.name}-{number}.png")
    return Case(folder.name, len(scan.slices), matches, len(false), seconds)


def _row(case: Case, found: Match) -> str:
    readers = ", ".join(f"{value:.1f}" for value in found.readers)
    if found.finding is None:
        return f"| {case.name} | {readers} | missed | - | - | - |"
    said = f"{found.finding.score:.2f} | {found.finding.diameter_mm:.1f} ({100 * (found.ratio - 1):+.0f} %)"
    return f"| {case.name} | {readers} | {said} | {found.within} of {len(found.readers)} | {found.overlap:.2f} |"
