"""What the manifest of ct-nodule says, apart from what training measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ct.judge import region
from ct.scan import SPEC
from radnode.detect.manifest import Accepts

NAME = "ct-nodule"
ACCEPTS = Accepts(
    level="series",
    sop_classes=("1.2.840.10008.5.1.4.1.1.2",),  # CT Image Storage
    modalities=("CT",),
    body_parts=("CHEST", "THORAX", "LUNG"),
    views=(),
    missing_body_part="accept",
    missing_view="accept",
    photometric_interpretations=("MONOCHROME2",),
    min_rows=256,
    min_columns=256,
    min_age_years=18,
)
INTENDED_USE = (
    "Experimental, for research only. Points at possible lung nodules of 5 to 35 mm on axial chest CT of adults. "
    "Trained on nodules that were drawn into the lung of one patient. Not a medical device, not validated for any "
    "clinical decision."
)


def manifest(
    *,
    version: str,
    device_uid: str,
    files: dict[str, str],
    cut: float,
    performance: Sequence[dict[str, Any]],
    slices: int,
    seed: int,
    steps: int,
) -> dict[str, Any]:
    """Return the manifest as plain values, ready to be written as TOML."""
    return {
        "format": 1,
        "name": NAME,
        "version": version,
        "device_uid": device_uid,
        "manufacturer": "radnode",
        "status": "experimental",
        "licence": "Apache-2.0",
        "intended_use": INTENDED_USE,
        "weights": "weights.pt2",
        "files": files,
        "accepts": ACCEPTS.model_dump(mode="json"),
        "volume": SPEC.model_dump(mode="json"),
        "output": {
            "threshold": cut,
            "finding": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"},
            "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
            "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0},
            "region": region(cut).model_dump(mode="json"),
        },
        "training": {
            "split": "slices 20-42 of the one patient, his own nodule among them, are of no patch of training; "
            "the cut was chosen on synthetic nodules there",
            "deidentification": "published de-identified by The Cancer Imaging Archive; no pixel is in the package",
            "pretrained": "none",
            "seed": seed,
            "command": f"scripts/train-ct --seed {seed} --steps {steps}",
            "sources": [
                {
                    "name": "C3N-00247 of the CPTAC collections, one chest CT; its nodules are synthetic",
                    "licence": "terms of the collection at The Cancer Imaging Archive; no image is in the package",
                    "citation": "Clark et al., Journal of Digital Imaging 2013; 26: 1045-1057 (TCIA)",
                    "images": slices,
                    "patients": 1,
                }
            ],
        },
        "performance": list(performance),
    }
