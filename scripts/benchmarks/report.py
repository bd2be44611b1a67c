"""`scripts/bench report`: how long a report takes from its analysis to its bytes, beside highdicom as documented."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median, quantiles

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks import ROOT
from radnode.model import Analysis, Code, Finding, ModelIdentity, Outcome, Region
from radnode.report.sr import build_report, encode_report

_FILM = ROOT / "tests/data/cxr_opacity.dcm"
_SLICES = ROOT / "tests/data/ct_lidc_0001"
_EVIDENCE = 400  # images of a long series
_MODEL = ModelIdentity("bench", "1.0.0", "2.25.1", "0" * 64, "radnode", ("threshold 0.5",))
_OPACITY = Code("112001", "DCM", "Opacity")
_LUNG = Code("39607008", "SCT", "Lung")
_BOX = ((100.0, 100.0), (200.0, 100.0), (200.0, 180.0), (100.0, 180.0))


@dataclass(frozen=True)
class Case:
    """What is reported: milliseconds to stay under and to reach, None where nobody asks."""

    name: str
    sources: Sequence[Dataset]
    findings: int
    must: float | None = None
    reach: float | None = None

    @property
    def analysis(self) -> Analysis:
        """As many boxes as there are to be, on the first image."""
        frame = 1 if len(self.sources) > 1 else None
        one = Finding(_OPACITY, 0.9, _LUNG, region=Region("box", _BOX, frame), diameter_mm=47.0)
        return Analysis(Outcome.FINDING, _MODEL, _OPACITY, 0.9, (150.0, 140.0), (one,) * self.findings)


def measure(rounds: int, say: Callable[[str], None]) -> None:
    """Measure and print medians and 99th percentiles over the rounds."""
    sys.path.insert(0, str(ROOT / "tests"))  # what the tests compare each tree with is what highdicom is measured by
    from support import highdicom_tree  # noqa: PLC0415

    film = pydicom.dcmread(_FILM, stop_before_pixels=True)
    slice_ = pydicom.dcmread(sorted(_SLICES.glob("*.dcm"))[0], stop_before_pixels=True)
    cases = (
        Case("one image, one finding", [film], 1, 10, 5),
        Case("one image, ten findings", [film], 10, 30, 15),
        Case(f"{_EVIDENCE} images, one finding", _series(slice_), 1),
        Case(f"{_EVIDENCE} images, ten findings", _series(slice_), 10),
    )
    say("| report, to its bytes | p50 ms | p99 ms | bytes | highdicom p50 ms | must | | reach | |")
    say("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        analysis = case.analysis

        def ours(case: Case = case, analysis: Analysis = analysis) -> bytes:
            return encode_report(_build(case.sources, analysis))

        def theirs(case: Case = case, analysis: Analysis = analysis) -> bytes:
            report = _build(case.sources, analysis)  # its header costs the same
            report.update(highdicom_tree.measurement_report(case.sources, analysis))
            buffer = io.BytesIO()
            report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            report.save_as(buffer, enforce_file_format=True)
            return buffer.getvalue()

        mine, other = _timed(ours, rounds), _timed(theirs, max(2, rounds // 10))
        half = median(mine)
        goals = [
            cell
            for goal in (case.must, case.reach)
            for cell in (("", "") if goal is None else (f"{goal:g}", "met" if half <= goal else "not met"))
        ]
        last = quantiles(mine, n=100)[-1]
        cells = [case.name, f"{half:.2f}", f"{last:.2f}", f"{len(ours()):,}", f"{median(other):.1f}", *goals]
        say(f"| {' | '.join(cells)} |")


def _build(sources: Sequence[Dataset], analysis: Analysis) -> Dataset:
    return build_report(
        sources,
        analysis,
        accepted_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        content_qualification="RESEARCH",
        software_version="bench",
    )


def _series(slice_: Dataset) -> list[Dataset]:
    """Headers of a long series: one slice under many UIDs."""
    made = []
    for number in range(_EVIDENCE):
        image = Dataset({tag: slice_.get_item(tag) for tag in sorted(slice_.keys())})  # as received: values undecoded
        image.SOPInstanceUID = f"2.25.{10**38 + number}"
        made.append(image)
    return made


def _timed(act: Callable[[], bytes], rounds: int) -> list[float]:
    """Return the milliseconds of each round, after one that warms up."""
    act()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        found.append(1000 * (time.perf_counter() - begun))
    return found
