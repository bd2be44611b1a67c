"""One warm model that looks at whole series: a volume in, an analysis out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radnode.detect.detector import Answer, box_finding, probabilities
from radnode.detect.lesions import Lesion, lesions
from radnode.detect.outline import Point, area
from radnode.detect.pixels import FloatImage, Geometry
from radnode.detect.program import place_program
from radnode.detect.volume import Volume
from radnode.errors import DetectionError, PackageError
from radnode.model import Analysis, Finding, Outcome, Reason, Region

if TYPE_CHECKING:
    from radnode.detect.package import Package

Forward = Callable[[FloatImage, tuple[float, float, float]], tuple[float, npt.NDArray[np.float32]]]


class SeriesDetector:
    """A package of the level series whose weights are loaded once; arguments and errors as of `Detector`."""

    def __init__(self, package: Package, device: str = "auto", threads: int = 1) -> None:
        if package.manifest.volume is None:
            raise PackageError(f"The model {package.identity.name} looks at images, not at whole series.")
        self.identity = package.identity
        self.target = package.target
        self.volume = package.manifest.volume
        self._output = package.manifest.output
        self._forward = _forward(package, device, threads)
        blank = np.zeros((self.volume.min_slices, self.volume.size, self.volume.size), dtype=np.float32)
        sentence = f"The model {self.identity.name} does not give one logit and heat (1, slices, R, C)."
        try:
            _, heat = self._forward(blank, (1.0, 1.0, 1.0))
        except Exception as error:  # a model is foreign code: whatever it raises, it is not usable
            raise PackageError(sentence) from error
        if heat.ndim != 3 or len(heat) != len(blank) or heat.shape[1] != heat.shape[2]:
            raise PackageError(sentence)
        self._cells = heat.shape[1]

    def detect(self, volume: Volume) -> Answer:
        """Return what the model says; a DetectionError with MODEL_RAISED, or MODEL_OUTPUT_INVALID for no numbers.

        Each lesion is one finding, on the slice where it is largest.
        """
        try:
            logit, heat_logits = self._forward(volume.pixels, volume.steps)
        except Exception as error:  # noqa: BLE001 (a model is foreign code: whatever it raises is its failure)
            failure = DetectionError(Reason.MODEL_RAISED)
            failure.__cause__ = error
            return failure
        if not (math.isfinite(logit) and np.isfinite(heat_logits).all()) or len(heat_logits) != len(volume.pixels):
            return DetectionError(Reason.MODEL_OUTPUT_INVALID)
        score, heat = probabilities(logit, heat_logits, self._output)
        found = lesions(heat, self._output.region) if score >= self._output.threshold else []
        make = self._contour_finding if self._output.region.kind == "contour" else self._box_finding
        made = (make(item, score, volume) for item in found)
        findings = tuple(finding for finding in made if finding is not None)
        return Analysis(
            outcome=Outcome.FINDING if findings else Outcome.NO_FINDING,
            model=self.identity,
            target=self.target,
            score=score,
            findings=findings,
        )

    def _box_finding(self, item: Lesion, score: float, volume: Volume) -> Finding | None:
        return box_finding(item.box, score, self._output, volume.geometry, volume.spacing, item.slice + 1)

    def _contour_finding(self, item: Lesion, score: float, volume: Volume) -> Finding | None:
        """Return a lesion with its outlines, longest diameter on its largest slice, and volume; None off the image."""
        points = _in_source(item.contour, volume.geometry)
        if not area(points):
            return None
        outlines = [(number, _in_source(each, volume.geometry)) for number, each in item.outlines]
        return Finding(
            code=self._output.finding.code,
            score=score * item.box.share,
            site=self._output.site.code,
            region=Region("contour", points, item.slice + 1),
            diameter_mm=_longest(points, volume.spacing),
            volume_mm3=item.cells * math.prod(volume.steps) * (volume.geometry.size / self._cells) ** 2,
            outlines=tuple(Region("contour", each, number + 1) for number, each in outlines if area(each)),
        )


def _in_source(points: Sequence[Point], geometry: Geometry) -> tuple[Point, ...]:
    """Return (column, row) of the source of points given as shares of the network's square."""
    return tuple(geometry.to_source(x * geometry.size, y * geometry.size) for x, y in points)


def _longest(points: Sequence[Point], spacing: tuple[float, float]) -> float:
    """Return the largest distance between two of the points (column, row), in mm; `spacing` is (row, column) in mm."""
    mm = np.asarray(points) * (spacing[1], spacing[0])
    return float(np.sqrt(((mm[:, None] - mm[None]) ** 2).sum(axis=-1)).max())


def _forward(package: Package, device: str, threads: int) -> Forward:
    """Load the weights and return a function from volume and steps (mm) to the logit and heat logits (slices, R, C)."""
    program, chosen = place_program(package, device, threads)
    import torch  # noqa: PLC0415 (it is there: the program is)

    def forward(pixels: FloatImage, steps: tuple[float, float, float]) -> tuple[float, npt.NDArray[np.float32]]:
        with torch.inference_mode():
            mm = torch.tensor([steps], dtype=torch.float32, device=chosen)
            logits, heats = program(torch.from_numpy(pixels)[None].to(chosen), mm)
            [logit], [heat] = logits.float().cpu().numpy(), heats.float().cpu().numpy()
            return float(logit), heat

    return forward
