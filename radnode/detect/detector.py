"""One warm model: images in, analyses out. Only this module, `series_detector`, `program` and `readings` use torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radnode.detect.parts import Parts
from radnode.detect.pixels import FloatImage, Geometry, PixelImage, prepare
from radnode.detect.precision import choose
from radnode.detect.program import place_program
from radnode.detect.readings import read_output
from radnode.detect.regions import HeatBox, boxes, peak
from radnode.errors import DetectionError, PackageError
from radnode.model import Analysis, Finding, Outcome, Reason, Region

if TYPE_CHECKING:
    from radnode.detect.manifest import OutputSpec
    from radnode.detect.package import Package
    from radnode.settings import Precision

MAX_BATCH = 64  # what programs are exported for

Answer = Analysis | DetectionError
# float32 (N, channels, size, size) to float32 logits (N,) and heat logits (N, R, C), an empty map where there is none.
Forward = Callable[[FloatImage], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
_NO_MAP = (0, 0)


class Detector:
    """A package whose weights are loaded once.

    `device` is "auto" (CUDA when there), "cpu" or "cuda"; `threads` bounds torch's intra-op threads; `precision` is
    that of `radnode.detect.precision`, and what is not float32 stands among the parameters of a report.

    Raises:
        PackageError: the weights do not load, or do not answer a blank image with usable numbers.
    """

    def __init__(
        self, package: Package, device: str = "auto", threads: int = 1, precision: Precision = "float32"
    ) -> None:
        if package.manifest.input is None:
            raise PackageError(f"The model {package.identity.name} looks at whole series, not at images.")
        self.identity = package.identity
        self.target = package.target
        self._input = package.manifest.input
        self._output = package.manifest.output
        self._forward, self._parts, is_half = _forward(package, device, threads, precision)
        if is_half:
            self.identity = replace(self.identity, parameters=(*self.identity.parameters, "computed in bfloat16"))
        self._check(np.zeros((2, len(self._input.mean), self._input.size, self._input.size), dtype=np.float32))

    @property
    def one_by_one(self) -> bool:
        """Whether the network takes one image at a time, whatever the batch."""
        return self._parts.together == 1

    @property
    def input_size(self) -> int:
        """Rows and columns of the network's input."""
        return self._input.size

    def _check(self, blank: FloatImage) -> None:
        """See that the network answers as its form says.

        Raises:
            PackageError: it does not.
        """
        try:
            logits, heats = self._forward(blank)
            fits = logits.shape == (len(blank),) and heats.ndim == 3 and len(heats) == len(blank)
        except Exception as error:  # a model is foreign code: whatever it raises, it is not usable
            raise PackageError(f"{self._unusable()} ({type(error).__name__} at a blank image).") from error
        if not fits or (heats.shape[1:] == _NO_MAP) != (self._output.form == "classes"):
            raise PackageError(f"{self._unusable()}.")

    def _unusable(self) -> str:
        gives = {"score_and_map": "image logits (N,) and heat (N, R, C)", "classes": "(N, K)", "map": "(N, K, R, C)"}
        channel = "" if self._output.form == "score_and_map" else f" with a channel {self._output.channel}"
        return f"The model {self.identity.name} does not give {gives[self._output.form]}{channel}"

    def detect(self, images: Sequence[PixelImage]) -> list[Answer]:
        """Return one answer an image, in their order; an answer does not depend on the images beside it.

        A batch that raises is tried again one by one. An image that fails is answered by a DetectionError:
        PIXELS_UNDECODABLE without contrast, MODEL_RAISED, or MODEL_OUTPUT_INVALID for numbers that are none.
        """
        answers: list[Answer | None] = [None] * len(images)
        tensors: list[FloatImage] = []
        placed: list[tuple[int, Geometry]] = []
        for index, image in enumerate(images):
            try:
                tensor, geometry = prepare(image, self._input)
            except DetectionError as error:
                answers[index] = error
            else:
                tensors.append(tensor)
                placed.append((index, geometry))
        for (index, geometry), numbers in zip(placed, self._run(tensors), strict=True):
            answers[index] = (
                numbers if isinstance(numbers, DetectionError) else self._interpret(*numbers, geometry, images[index])
            )
        return [answer for answer in answers if answer is not None]

    def _run(self, tensors: list[FloatImage]) -> list[tuple[float, FloatImage] | DetectionError]:
        """Return image logit and heat logits of each tensor, or why there are none."""
        if not tensors:
            return []
        try:
            logits, heats = self._forward(np.stack(tensors))
        except Exception as error:  # noqa: BLE001 (a model is foreign code: whatever it raises is its failure)
            if len(tensors) == 1:
                failure = DetectionError(Reason.MODEL_RAISED)
                failure.__cause__ = error
                return [failure]
            return [self._run([tensor])[0] for tensor in tensors]
        return [(float(logit), heat) for logit, heat in zip(logits, heats, strict=True)]

    def _interpret(self, logit: float, heat_logits: FloatImage, geometry: Geometry, image: PixelImage) -> Answer:
        """Return what the numbers of one image mean."""
        if not (math.isfinite(logit) and np.isfinite(heat_logits).all()):
            return DetectionError(Reason.MODEL_OUTPUT_INVALID)
        output = self._output
        score, heat = probabilities(logit, heat_logits, output)
        if not heat.size:
            if score < output.threshold:
                return Analysis(Outcome.NO_FINDING, self.identity, self.target, score)
            whole = Finding(output.finding.code, score, output.site.code)
            return Analysis(Outcome.FINDING, self.identity, self.target, score, findings=(whole,))
        x, y = peak(heat)
        size = self._input.size
        highest = geometry.to_source(x * size, y * size)
        findings: tuple[Finding, ...] = ()
        if score >= output.threshold:
            found = boxes(heat, output.region)
            made = (box_finding(box, score, output, geometry, image.patient_spacing) for box in found)
            findings = tuple(finding for finding in made if finding is not None)
        return Analysis(
            outcome=Outcome.FINDING if findings else Outcome.NO_FINDING,
            model=self.identity,
            target=self.target,
            score=score,
            peak=highest,
            findings=findings,
        )


def box_finding(
    box: HeatBox,
    score: float,
    output: OutputSpec,
    geometry: Geometry,
    spacing: tuple[float, float] | None,
    frame: int | None = None,
) -> Finding | None:
    """Return one box as a finding, None when nothing of it lies within the image.

    The box with the highest heat has the score of the image, the others that score times their share of its heat.
    Laterality is left out: a box in image columns does not say which side of the patient it is. `geometry` is
    that of the image the box is on, `spacing` its (row, column) in mm in the patient; `frame` says which image of
    a series it is, from 1.
    """
    size = geometry.size
    left, top = geometry.to_source(box.left * size, box.top * size)
    right, bottom = geometry.to_source(box.right * size, box.bottom * size)
    if right <= left or bottom <= top:
        return None
    return Finding(
        code=output.finding.code,
        score=score * box.share,
        site=output.site.code,
        region=Region("box", ((left, top), (right, top), (right, bottom), (left, bottom)), frame),
        diameter_mm=_longer_side(right - left, bottom - top, spacing),
    )


def _forward(package: Package, device: str, threads: int, precision: Precision) -> tuple[Forward, Parts, bool]:
    """Load the weights and return what runs them, over which parts, and whether that computes in bfloat16."""
    program, chosen = place_program(package, device, threads)
    import torch  # noqa: PLC0415 (it is there: the program is)

    # Depthwise networks on a CPU: 30 ms a film one by one, channels last; 38 ms otherwise; 52-67 ms in batches of 8.
    parts = Parts(1 if chosen == "cpu" else MAX_BATCH)
    output, spec = package.manifest.output, package.manifest.input

    def read(batch: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        tensor = batch.to(chosen).contiguous(memory_format=torch.channels_last)
        return parts.run(lambda part: read_output(program(part), output), tensor)

    shape = (2, 1, 32, 32) if spec is None else (2, len(spec.mean), spec.size, spec.size)
    is_half = choose(lambda noise: torch.cat([logits for logits, _ in read(noise)]), shape, chosen, precision)

    def forward(batch: FloatImage) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        with torch.inference_mode(), torch.autocast(chosen, torch.bfloat16, enabled=is_half):
            said = read(torch.from_numpy(batch))
        logits = torch.cat([logits for logits, _ in said])
        heats = [logits.new_zeros((len(part), *_NO_MAP)) if heat is None else heat for part, heat in said]
        return logits.cpu().numpy(), torch.cat(heats).cpu().numpy()

    return forward, parts, is_half


def probabilities(logit: float, heat_logits: FloatImage, output: OutputSpec) -> tuple[float, FloatImage]:
    """Return the calibrated score (0..1) and the heat map of probabilities, whatever its shape."""
    score = _sigmoid(output.calibration.slope * logit + output.calibration.intercept)
    return score, (1.0 / (1.0 + np.exp(-np.clip(heat_logits, -60, 60)))).astype(np.float32)


def _sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)) without overflow."""
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0 else math.exp(value) / (1.0 + math.exp(value))


def _longer_side(columns: float, rows: float, spacing: tuple[float, float] | None) -> float | None:
    """Return the longer side of a box in mm, None where no spacing holds in the patient."""
    return None if spacing is None else max(columns * spacing[1], rows * spacing[0])
