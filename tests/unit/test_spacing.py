"""Where the size of a pixel holds."""

from __future__ import annotations

import pytest

from radnode.spacing import Basis, Spacing, judge


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"Modality": "CT", "PixelSpacing": "0.5\\0.7"}, Spacing(Basis.SLICE, (0.5, 0.7))),
        ({"PixelSpacing": "0.5\\0.7"}, Spacing(Basis.SLICE, (0.5, 0.7))),
        ({"Modality": "CR", "PixelSpacing": "0.5\\0.5"}, Spacing(Basis.UNSTATED, (0.5, 0.5))),
        ({"Modality": "DX", "ImagerPixelSpacing": "0.2\\0.2"}, Spacing(Basis.DETECTOR, (0.2, 0.2))),
        (
            {"Modality": "DX", "ImagerPixelSpacing": "0.2\\0.2", "PixelSpacing": "0.2\\0.20"},
            Spacing(Basis.DETECTOR, (0.2, 0.2)),
        ),
        (
            {"Modality": "DX", "ImagerPixelSpacing": "0.2\\0.2", "PixelSpacing": "0.18\\0.18"},
            Spacing(Basis.CALIBRATED, (0.18, 0.18)),
        ),
        (
            {"Modality": "DX", "ImagerPixelSpacing": "0.2\\0.2", "PixelSpacing": "0.18\\0.18"}
            | {"PixelSpacingCalibrationType": "GEOMETRY"},
            Spacing(Basis.GEOMETRY, (0.18, 0.18)),
        ),
        (
            {"Modality": "CR", "PixelSpacing": "0.18\\0.18", "PixelSpacingCalibrationType": "FIDUCIAL"},
            Spacing(Basis.FIDUCIAL, (0.18, 0.18)),
        ),
        (
            {"Modality": "CR", "PixelSpacing": "0.2\\0.2", "ImagerPixelSpacing": "0.2\\0.2"}
            | {"PixelSpacingCalibrationType": "FIDUCIAL"},
            Spacing(Basis.FIDUCIAL, (0.2, 0.2)),
        ),
        (
            {"Modality": "MG", "ImagerPixelSpacing": "0.1\\0.2", "EstimatedRadiographicMagnificationFactor": "1.25"},
            Spacing(Basis.MAGNIFICATION, (0.08, 0.16)),
        ),
        (
            {"Modality": "MG", "ImagerPixelSpacing": "0.1\\0.1", "EstimatedRadiographicMagnificationFactor": "0"},
            Spacing(Basis.DETECTOR, (0.1, 0.1)),
        ),
        ({"Modality": "CT", "PixelSpacing": "0\\0.5"}, Spacing(Basis.NONE)),
        ({"Modality": "CT", "PixelSpacing": "nan\\0.5"}, Spacing(Basis.NONE)),
        ({"Modality": "CT", "PixelSpacing": "0.5"}, Spacing(Basis.NONE)),
        ({"Modality": "CT", "PixelSpacing": "half\\0.5"}, Spacing(Basis.NONE)),
        ({"Modality": "CT", "PixelSpacing": "500\\500"}, Spacing(Basis.NONE)),
        ({}, Spacing(Basis.NONE)),
    ],
)
def test_spacing_is_judged_by_what_the_image_says(values: dict[str, str], expected: Spacing) -> None:
    assert judge(lambda keyword: values.get(keyword, "")) == expected


def test_a_length_in_mm_needs_spacing_in_the_patient() -> None:
    assert [basis for basis in Basis if not basis.in_patient] == [Basis.DETECTOR, Basis.UNSTATED, Basis.NONE]
    for basis in Basis:
        assert ("pixels" in basis.value) is not basis.in_patient
