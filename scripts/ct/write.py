"""Everything that was trained and measured, as a signed package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parcel.sign import device_uid, digest, finish, new_folder

from ct import figures
from ct.card import Measured, Real, card
from ct.judge import Found, Slab, choose_cut, heat_of, judge, slabs
from ct.lidc import match, read_nodules
from ct.manifest import NAME, manifest
from ct.net import NoduleNet
from ct.program import Served, export
from ct.sample import OWN_RADIUS_MM, own_nodule
from ct.scan import Scan, read_scan
from radnode.detect.manifest import Manifest
from radnode.detect.package import Package
from radnode.detect.series_detector import SeriesDetector
from radnode.errors import DetectionError
from radnode.model import Finding, ModelIdentity

BOOTSTRAPS = 1000
OF = "synthetic nodules in slices of the training patient that were never trained on"


def write_package(net: NoduleNet, scan: Scan, options: argparse.Namespace) -> None:
    """Choose the cut, measure, and write `<out>/ct-nodule/<version>`, signed and checked."""
    folder = new_folder(options.out, NAME, options.version)
    export(net, folder / "weights.pt2")
    uid = device_uid(folder)
    served, tried = Served(net).eval(), slabs(scan, options.seed)
    judged = [judge(heat_of(served, slab.slices, scan.step), slab, scan.step) for slab in tried]
    cut = choose_cut(judged)
    performance = measure(judged, tried, cut, options.seed)

    def document(files: dict[str, str], performance: Sequence[dict[str, Any]] = performance) -> dict[str, Any]:
        return manifest(
            version=options.version,
            device_uid=uid,
            files=files,
            cut=cut,
            performance=performance,
            slices=len(scan.slices),
            seed=options.seed,
            steps=options.steps,
        )

    detector = _detector(folder, document)
    real = [_real(detector, path, folder / "figures/examples.png") for path in options.test]
    own = own_finding(detector, scan)
    kinds = []
    for kind in sorted({truth.kind for slab in tried for truth in slab.truths}):
        of_kind = [(i, j) for i, slab in enumerate(tried) for j, truth in enumerate(slab.truths) if truth.kind == kind]
        found = {(i, found.truth) for i, each in enumerate(judged) for found in each if found.score >= cut}
        kinds.append((kind, len(of_kind), sum(pair in found for pair in of_kind)))
    size = sum(parameter.numel() for parameter in net.parameters())
    measured = Measured(cut, len(tried), performance, kinds, real, own, size)
    figures.froc(judged, sum(len(slab.truths) for slab in tried), cut, folder / "figures/froc.png")
    figures.diameters(judged, tried, cut, folder / "figures/diameters.png")
    (folder / "MODEL_CARD.md").write_text(card(options.version, uid, measured, options.steps), encoding="utf-8")
    (folder / "metrics.json").write_text(_metrics(measured), encoding="utf-8")
    finish(folder, options, document)


def _metrics(measured: Measured) -> str:
    """Return what was measured as JSON, findings without their outlines."""

    def plain(finding: Finding | None) -> dict[str, float | int | None] | None:
        if finding is None or finding.region is None:
            return None
        return {
            "score": finding.score,
            "slice": finding.region.frame,
            "diameter_mm": finding.diameter_mm,
            "volume_mm3": finding.volume_mm3,
        }

    real = [
        {
            "scan": case.name,
            "slices": case.slices,
            "false": case.false,
            "nodules": [
                {
                    "readers_mm": found.readers,
                    "readers_on_slice_mm": found.on_slice,
                    "finding": plain(found.finding),
                    "held_by": found.within,
                    "overlap": found.overlap,
                }
                for found in case.matches
            ],
        }
        for case in measured.real
    ]
    document = {
        "cut": measured.cut,
        "slabs": measured.slabs,
        "synthetic": measured.performance,
        "kinds": measured.kinds,
        "real": real,
        "own_nodule": plain(measured.own),
    }
    return json.dumps(document, indent=2) + "\n"


def measure(judged: Sequence[Sequence[Found]], tried: Sequence[Slab], cut: float, seed: int) -> list[dict[str, Any]]:
    """Return what was measured at a cut, each with its 95 % interval by bootstrap over slabs."""
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(tried), size=len(tried)) for _ in range(BOOTSTRAPS)]
    named: dict[str, Callable[[Sequence[int]], float]] = {
        "sensitivity for nodules of 5 mm and more": lambda rows: _sensitivity(judged, tried, cut, rows),
        "false findings per slab": lambda rows: float(
            np.mean([sum(found.truth is None and found.score >= cut for found in judged[row]) for row in rows])
        ),
        "median error of the diameter, in shares of it": lambda rows: _error(judged, tried, cut, rows),
    }
    result = []
    for name, value in named.items():
        low, high = (float(v) for v in np.nanpercentile([value(rows) for rows in draws], (2.5, 97.5)))
        rounded = {"value": value(range(len(tried))), "low": low, "high": high}
        result.append({"name": name, **{key: round(v, 4) for key, v in rounded.items()}, "of": OF})
    return result


def _sensitivity(judged: Sequence[Sequence[Found]], tried: Sequence[Slab], cut: float, rows: Sequence[int]) -> float:
    hit = total = 0
    for row in rows:
        found = {each.truth for each in judged[row] if each.score >= cut}
        large = [index for index, truth in enumerate(tried[row].truths) if truth.diameter >= 5.0]
        hit += sum(index in found for index in large)
        total += len(large)
    return hit / total if total else float("nan")


def _error(judged: Sequence[Sequence[Found]], tried: Sequence[Slab], cut: float, rows: Sequence[int]) -> float:
    errors = [
        abs(found.diameter / tried[row].truths[found.truth].diameter - 1)
        for row in rows
        for found in judged[row]
        if found.truth is not None and found.score >= cut
    ]
    return float(np.median(errors)) if errors else float("nan")


def _detector(folder: Path, document: Callable[..., dict[str, Any]]) -> SeriesDetector:
    """Return the detector that the package will be, before it has a card to be signed with."""
    checked = Manifest.model_validate(document({"weights.pt2": digest(folder / "weights.pt2")}, ()))
    identity = ModelIdentity(checked.name, checked.version, checked.device_uid, "", checked.manufacturer)
    return SeriesDetector(Package(folder, checked, identity, ""), device="cpu", threads=1)


def _real(detector: SeriesDetector, folder: Path, picture: Path) -> Real:
    """Return what the detector says of a folder with one series and the XML file of its readers."""
    scan = read_scan(folder)
    nodules = read_nodules(next(folder.rglob("*.xml")), scan.volume.spacing)
    matches, false = match(nodules, findings_of(detector, scan), scan.uids, scan.volume.spacing)
    for readings, found in zip(nodules, matches, strict=True):
        if found.finding is not None and not picture.exists():
            figures.examples(scan, readings, found.finding, picture)
    return Real(next(folder.rglob("*.xml")).stem, len(scan.slices), scan.step, matches, len(false))


def own_finding(detector: SeriesDetector, scan: Scan) -> Finding | None:
    """Return what the detector says of the patient's own nodule."""
    number, row, column = own_nodule(scan)
    for finding in findings_of(detector, scan):
        if finding.region is None:
            continue
        x, y = np.mean([scan.volume.geometry.to_network(*point) for point in finding.region.points], axis=0)
        middle = scan.to_grid(x, y)
        off = ((finding.region.frame or 1) - 1 - number) * scan.step, middle[1] - row, middle[0] - column
        if float(np.linalg.norm(off)) < OWN_RADIUS_MM:
            return finding
    return None


def findings_of(detector: SeriesDetector, scan: Scan) -> Sequence[Finding]:
    """Return the findings on a scan.

    Raises:
        DetectionError: the detector gives no answer.
    """
    answer = detector.detect(scan.volume)
    if isinstance(answer, DetectionError):
        raise answer
    return answer.findings
