"""Analyses with each of the four outcomes, and reports on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from radnode.model import Analysis, Code, Finding, ModelIdentity, Outcome, Reason, Region
from radnode.report.sr import build_report

ACCEPTED_AT = datetime(2026, 3, 4, 5, 6, 7, 891011, UTC)
OPACITY = Code("112001", "DCM", "Opacity")
LUNG = Code("39607008", "SCT", "Lung")
LEFT = Code("7771000", "SCT", "Left")
MODEL = ModelIdentity(
    name="cxr-opacity", version="1.0.0", device_uid="2.25.1234567", digest="5e" * 32, manufacturer="radnode"
)
BOX = Region("box", ((315.0, 106.0), (436.5, 106.0), (436.5, 318.0), (315.0, 318.0)))
CONTOUR = Region("contour", ((20.25, 30.0), (60.0, 30.5), (50.0, 70.0)))

FINDING = Analysis(
    outcome=Outcome.FINDING,
    model=MODEL,
    target=OPACITY,
    score=0.9312,
    peak=(370.0, 210.0),
    findings=(
        Finding(OPACITY, 0.8734, LUNG, LEFT, BOX, diameter_mm=85.6),
        Finding(OPACITY, 0.61, LUNG, region=CONTOUR),
        Finding(OPACITY, 0.55),
    ),
)
NO_FINDING = Analysis(outcome=Outcome.NO_FINDING, model=MODEL, target=OPACITY, score=0.0321, peak=(99.0, 201.0))
FAILED = Analysis.without_result(Reason.PIXELS_UNDECODABLE, MODEL, OPACITY)
NOT_ATTEMPTED = Analysis.without_result(Reason.UNSUPPORTED_VIEW, MODEL, OPACITY)
ANALYSES = {"finding": FINDING, "no_finding": NO_FINDING, "failed": FAILED, "not_attempted": NOT_ATTEMPTED}


def disc(column: float, row: float, radius: float, frame: int | None = None) -> Region:
    """A contour of 32 points around a disc, in pixels."""
    turns = [2 * math.pi * step / 32 for step in range(32)]
    points = tuple((column + radius * math.cos(turn), row + radius * math.sin(turn)) for turn in turns)
    return Region("contour", points, frame)


def lesion(score: float, *outlines: Region) -> Finding:
    """A finding with a mask, to be looked at on the slice of its second outline, where it has one."""
    return Finding(OPACITY, score, LUNG, LEFT, outlines[len(outlines) > 1], outlines=outlines)


def report(sources: Dataset | Sequence[Dataset], analysis: Analysis = FINDING, **options: object) -> Dataset:
    """A report with the defaults of the tests."""
    values = {"accepted_at": ACCEPTED_AT, "content_qualification": "RESEARCH", "software_version": "0.1.0"} | options
    return build_report([sources] if isinstance(sources, Dataset) else sources, analysis, **values)
