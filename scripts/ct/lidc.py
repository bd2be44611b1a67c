"""Nodules as the readers of LIDC-IDRI drew them (their XML), and whether findings of a detector are on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from ct.judge import longest
from radnode.model import Finding, Region
from radnode.report.masks import fill

SAME_MM = 15.0  # two readers' outlines whose middles are no further apart are one nodule
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Reading:
    """What one reader drew of one nodule: outlines by SOP Instance UID, (column, row) as in SCOORD.

    LIDC outlines go through the first pixels outside of the nodule, so that a diameter is up to two pixels long.
    """

    outlines: dict[str, tuple[Points, ...]]

    def diameter(self, spacing: tuple[float, float], uid: str | None = None) -> float:
        """Return the longest diameter in mm on one slice, or on any; `spacing` is (row, column) in mm."""
        shown = self.outlines.values() if uid is None else [self.outlines[uid]]
        return max(longest([(x * spacing[1], y * spacing[0]) for x, y in points]) for each in shown for points in each)

    def middle(self) -> np.ndarray:
        """Return the middle of its outlines, (column, row)."""
        return np.mean([np.mean(points, axis=0) for each in self.outlines.values() for points in each], axis=0)


def read_nodules(path: Path, spacing: tuple[float, float]) -> list[list[Reading]]:
    """Return the nodules of an LIDC XML file that readers outlined (3 mm and more), each with its readings."""
    root = ET.parse(path).getroot()  # noqa: S314 (a file of the developer's own)
    space = {"n": root.tag.partition("}")[0].strip("{")}
    nodules: list[list[Reading]] = []
    for drawn in root.findall("n:readingSession/n:unblindedReadNodule", space):
        outlines: dict[str, tuple[Points, ...]] = {}
        for roi in drawn.findall("n:roi", space):
            points = tuple(
                (float(edge.findtext("n:xCoord", "", space)) + 0.5, float(edge.findtext("n:yCoord", "", space)) + 0.5)
                for edge in roi.findall("n:edgeMap", space)
            )
            if len(points) > 2 and roi.findtext("n:inclusion", "", space).upper() == "TRUE":
                uid = roi.findtext("n:imageSOP_UID", "", space)
                outlines[uid] = (*outlines.get(uid, ()), points)
        if not outlines:
            continue
        reading = Reading(outlines)
        same = [
            other for other in nodules
            if np.linalg.norm((other[0].middle() - reading.middle()) * spacing[::-1]) <= SAME_MM
        ]  # fmt: skip
        if same:
            same[0].append(reading)
        else:
            nodules.append([reading])
    return nodules


@dataclass(frozen=True)
class Match:
    """One nodule of the readers and what the detector says there.

    `readers` are their longest diameters in mm, `on_slice` those on the slice of the finding; `finding` is None where
    it was missed; `within` says how many of the readings hold the middle of the finding's outline on its slice,
    `overlap` is the mean intersection over union with the outlines that readers drew on that slice.
    """

    readers: tuple[float, ...]
    on_slice: tuple[float, ...]
    finding: Finding | None
    within: int
    overlap: float

    @property
    def ratio(self) -> float:
        """Diameter of the finding over the mean of the readers'."""
        return self._ratio(self.readers)

    @property
    def ratio_on_slice(self) -> float:
        """The same with the readers' diameters on the slice that the finding was measured on."""
        return self._ratio(self.on_slice)

    def _ratio(self, readers: tuple[float, ...]) -> float:
        if self.finding is None or self.finding.diameter_mm is None:
            return float("nan")
        return self.finding.diameter_mm / float(np.mean(readers))


def match(
    nodules: Sequence[Sequence[Reading]], findings: Sequence[Finding], uids: Sequence[str], spacing: tuple[float, float]
) -> tuple[list[Match], list[Finding]]:
    """Return what became of each nodule, and the findings that are on none; `uids` are of the slices in order."""
    result, left = [], list(findings)
    for readings in nodules:
        diameters = tuple(reading.diameter(spacing) for reading in readings)
        judged = [(finding, *_agreement(readings, finding.region, uids)) for finding in left if finding.region]
        on = [item for item in judged if item[1]]
        best = max(on, key=lambda item: (item[1], item[2]), default=None)
        left = [finding for finding in left if all(finding is not other for other, _, _ in on)]
        if best is None:
            result.append(Match(diameters, (), None, 0, 0.0))
            continue
        uid = uids[(best[0].region.frame or 1) - 1]
        on_slice = tuple(reading.diameter(spacing, uid) for reading in readings if uid in reading.outlines)
        result.append(Match(diameters, on_slice, *best))
    return result, left


def _agreement(readings: Sequence[Reading], region: Region, uids: Sequence[str]) -> tuple[int, float]:
    """Return how many readings hold the middle of a region, and the mean overlap with theirs on its slice."""
    uid = uids[(region.frame or 1) - 1]
    size = int(max(max(point) for point in region.points)) + 64
    drawn = [fill(reading.outlines[uid], size, size) for reading in readings if uid in reading.outlines]
    if not drawn:
        return 0, 0.0
    found = fill([region.points], size, size)
    rows, columns = np.nonzero(found)
    if not len(rows):
        return 0, 0.0
    row, column = round(rows.mean()), round(columns.mean())
    held = sum(bool(mask[row, column]) for mask in drawn)
    overlap = np.mean([(mask & found).sum() / (mask | found).sum() for mask in drawn])
    return held, float(overlap)
