"""Row 17 of "Bad input and what it gets" (security.md): headers that contradict their pixels.

One rule: what can be read is stored (0000), and where its pixels make no image the report says "failed".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import config
from support import films
from support.bad_input import Target, target_in
from support.node import wait_for

from radnode.part10 import read_file_meta

GOOD, FAILED = ("no_finding", None), ("failed", "pixels_undecodable")
# declined before any pixel is looked at
MANY_FRAMES = ("not_attempted", "multi_frame")
MANY_SAMPLES = ("not_attempted", "unsupported_photometric_interpretation")
US, UL = 2, 4  # bytes
# the elements of the normal film that are otherwise, each with VR and bytes, and what becomes of it
CONTRADICTIONS: dict[str, tuple[dict[str, tuple[str, bytes]], tuple[str, str | None]]] = {
    "rows x columns x frames overflow": (
        {"Rows": ("US", b"\xff\xff"), "Columns": ("US", b"\xff\xff"), "NumberOfFrames": ("IS", b"2147483647")},
        MANY_FRAMES,
    ),
    "rows x columns overflow": ({"Rows": ("US", b"\xff\xff"), "Columns": ("US", b"\xff\xff")}, FAILED),
    "rows x columns x samples overflow": (
        {"Rows": ("US", b"\xff\xff"), "Columns": ("US", b"\xff\xff"), "SamplesPerPixel": ("US", b"\xff\xff")},
        MANY_SAMPLES,
    ),
    "more rows than pixels": ({"Rows": ("US", b"\xff\xff")}, FAILED),
    "more frames than pixels": ({"NumberOfFrames": ("IS", b"2 ")}, MANY_FRAMES),
    "no rows": ({"Rows": ("US", b"")}, FAILED),
    "0 columns": ({"Columns": ("US", bytes(US))}, FAILED),
    "half of the pixels": ({"PixelData": ("OW", bytes(1000))}, FAILED),
    "empty pixels": ({"PixelData": ("OW", b"")}, FAILED),
    "high bit beyond the word": ({"HighBit": ("US", b"\xc8\x00")}, FAILED),
    "more bits stored than allocated": ({"BitsStored": ("US", b"\xff\x00")}, FAILED),
    "no bits": ({"BitsAllocated": ("US", bytes(US))}, FAILED),
    "rows as UL": ({"Rows": ("UL", (512).to_bytes(UL, "little"))}, GOOD),
    "rows as UL, too many": ({"Rows": ("UL", b"\xff" * UL)}, FAILED),
    "bits as UL, too many": ({"BitsAllocated": ("UL", b"\xff" * UL)}, FAILED),
}


@pytest.fixture(scope="module")
def analysing(lane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A node that analyses what it receives."""
    with target_in(tmp_path_factory.mktemp(f"pixels-{lane}"), lane, "worker") as target:
        yield target


@pytest.fixture(scope="module")
def results(analysing: Target) -> dict[str, dict[str, Any]]:
    """The result on each film, after every one of them was stored as it was sent."""
    uids = {}
    for label, (elements, _) in CONTRADICTIONS.items():
        dataset = films.fresh(films.NORMAL)
        uids[label] = str(dataset.SOPInstanceUID)
        with config.disable_value_validation():
            for keyword, (vr, value) in elements.items():
                films.with_raw(dataset, keyword, vr, value)
            part10 = films.file_bytes(dataset)
        data_set = part10[read_file_meta(part10).offset :]
        sop_class, syntax = str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)
        with analysing.attacked():
            assert analysing.store_bytes(data_set, uids[label], sop_class=sop_class, syntax=syntax) == 0x0000
        kept = analysing.kept(uids[label])
        assert kept is not None
        assert kept[read_file_meta(kept).offset :] == data_set

    def reported() -> dict[str, dict[str, Any]] | None:
        found = {row["source"]["SOPInstanceUID"]: row for row in analysing.node.results()}
        return found if set(uids.values()) <= set(found) else None

    found = wait_for(reported, 60, "every film is reported")
    return {label: found[uid] for label, uid in uids.items()}


@pytest.mark.parametrize("label", CONTRADICTIONS)
def test_row_17_header_that_contradicts_its_pixels_is_stored_and_reported(results, label: str) -> None:
    result = results[label]
    assert (result["outcome"], result["reason"]) == CONTRADICTIONS[label][1]


def test_row_17_no_process_died_of_them(analysing: Target, results) -> None:
    assert [line for line in analysing.log() if line["event"] == "role_died"] == []
