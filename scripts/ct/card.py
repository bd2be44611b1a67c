"""MODEL_CARD.md of ct-nodule: what it is, what it was seen to do, and what nobody knows about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ct.lidc import Match
from ct.manifest import INTENDED_USE
from ct.net import APART_MM, CHANNELS
from ct.program import EDGE
from radnode.model import Finding


@dataclass(frozen=True)
class Real:
    """What the shipped package says of a real scan that it was not trained on, by readers' outlines."""

    name: str
    slices: int
    step: float
    matches: list[Match]
    false: int


@dataclass(frozen=True)
class Measured:
    """Everything that was measured: on synthetic nodules by kind, on readers' cases, on the patient's own nodule."""

    cut: float
    slabs: int
    performance: list[dict[str, Any]]
    kinds: list[tuple[str, int, int]]
    """Kind, pasted, found at the cut."""
    real: list[Real]
    own: Finding | None
    parameters: int


def _performance(measured: Measured) -> str:
    return "\n".join(
        f"| {item['name']} | {item['value']:.2f} | {item['low']:.2f}-{item['high']:.2f} |"
        for item in measured.performance
    )


def _cases(real: Sequence[Real]) -> str:
    rows = []
    for case in real:
        for found in case.matches:
            readers = f"{np.mean(found.readers):.1f} ({min(found.readers):.1f}-{max(found.readers):.1f})"
            said = found.finding
            shown = "- | missed | - | - | -"
            if said is not None:
                shown = (
                    f"{np.mean(found.on_slice):.1f} | {said.score:.2f} | {said.diameter_mm:.1f} "
                    f"({100 * (found.ratio - 1):+.0f} %, {100 * (found.ratio_on_slice - 1):+.0f} %) | "
                    f"{found.within} of {len(found.readers)} | {found.overlap:.2f}"
                )
            rows.append(f"| {case.name}, {case.slices} x {case.step:g} mm | {readers} | {shown} | {case.false} |")
    return "\n".join(rows)


def _own(measured: Measured) -> str:
    if measured.own is None:
        return "It is missed at the shipped cut."
    return (
        f"It is found with a score of {measured.own.score:.2f} and measured {measured.own.diameter_mm:.1f} mm; nobody "
        "outlined it."
    )


def card(version: str, device_uid: str, measured: Measured, steps: int) -> str:
    """Return the text of the card."""
    kinds = "\n".join(f"| {kind} | {pasted} | {found} |" for kind, pasted, found in measured.kinds)
    return f"""# ct-nodule {version}

**Status: EXPERIMENTAL.** {INTENDED_USE}

Device UID `{device_uid}` (new for every training). Weights: Apache-2.0; the data below keep their own terms.

## What it does
A whole CT series in; out come possible nodules, each with its outline on every slice, the longest diameter on the slice
where it is largest, and its volume. A U-Net of {measured.parameters / 1e6:.2f} M parameters looks at each slice of
1 mm pixels with {CHANNELS - 1} neighbours that are {APART_MM:g} mm apart, whatever the thickness of the slices. A mask
of the lungs, closed over what grows at the pleura, bounds where it looks. A nodule's score is the highest mean share of
nodule in a block of 3 slices x 5 x 5 mm, so that what is small or thin (vessels, noise) scores low: the false-positive
reduction. **The score is no probability**: there are no labelled scans here to calibrate it on.

It takes axial CT with position, orientation and spacing, of 8 to 800 slices. Anything else is answered by a report "not
attempted" that names the reason. What a package is: [docs/models.md](../../../docs/models.md).

## What was measured on synthetic nodules
{measured.slabs} slabs of 23 slices of the training patient that no patch of training touched: half with three pasted
nodules of 5 to 32 mm each, half with pasted vessels and scars alone. The cut of {measured.cut:.3f} was chosen on them,
as the lowest that leaves a false finding in one slab of two, and on nothing else. 95 % intervals by bootstrap over
slabs; they say nothing about other patients, since all slabs are one patient's lung.

| figure | value | 95 % CI |
|---|---|---|
{_performance(measured)}

| kind | pasted | found |
|---|---|---|
{kinds}

![FROC](figures/froc.png) ![Diameters](figures/diameters.png)

## What was seen on real nodules
Scans that were not trained on and that cut and network were not chosen by. Diameters in mm: the mean of the readers'
longest (and their range), the mean of theirs on the slice that the detector measures on, and the detector's, with its
difference from both. Outlines of LIDC readers go through the first pixels outside of a nodule, so that their diameters
are up to two pixels long. "Held by": how many readings hold the middle of the finding.

| scan | readers | on that slice | score | measured | held by | overlap (IoU) | false findings |
|---|---|---|---|---|---|---|---|
{_cases(measured.real)}

The patient of the training data has a nodule of his own, in the slices that were left out.
{_own(measured)}

![Slices through the nodule of LIDC-IDRI-0001: readers green, the detector red](figures/examples.png)

A handful of conspicuous nodules is no measure of sensitivity. Count on missed nodules.

## Training data
One chest CT of 99 slices of 3 mm (C3N-00247, CPTAC, The Cancer Imaging Archive), without the slices 20 to 42. {steps}
batches of 12 patches of 96 x 96 mm, each drawn anew. Nodules are synthetic: solid, spiculated, part-solid and ground
glass, 3 to 36 mm, in lung, at the pleura and on vessels; pasted vessels and scars, and lung as it is, are what it
learns not to find. LIDC-IDRI-0001 (Armato et al. 2011, CC BY 3.0) was looked at while this was made: that a pixel
counts from a share of {EDGE:g} on, and that the mask of the lungs cuts no outline, was decided after it had been
measured 15 % short. It is no untouched test.

## What nobody knows
- How it does on other patients, scanners, kernels, doses, with contrast, with emphysema, fibrosis, pneumonia, effusion
  or after surgery: it was not tried. False findings at hila, scars and dependent lung are to be expected.
- Whether it finds nodules under 5 mm, many at once, or calcified and cavitating ones. At the apices and the diaphragm
  it is weaker. A nodule that a slab cuts off may be missed or measured short.
- Whether a nodule is malignant: it says nothing about that, and neither does its score.
- Volume is voxels times their size; it was compared with nothing.
"""
