"""One warm model that looks at whole series: a volume in, an analysis out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radnode.detect.detector import Answer, box_finding, probabilities
from radnode.detect.lesions import lesions
from radnode.detect.pixels import FloatImage
from radnode.detect.program import place_program
from radnode.detect.volume import Volume
from radnode.errors import DetectionError, PackageError
from radnode.model import Analysis, Outcome, Reason

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
        if heat.ndim != 3 or len(heat) != len(blank):
            raise PackageError(sentence)

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
        made = (
            box_finding(item.box, score, self._output, volume.geometry, volume.spacing, item.slice + 1)
            for item in found
        )
        findings = tuple(finding for finding in made if finding is not None)
        return Analysis(
            outcome=Outcome.FINDING if findings else Outcome.NO_FINDING,
            model=self.identity,
            target=self.target,
            score=score,
            findings=findings,
        )


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
