"""Row 18 of "Bad input and what it gets" (security.md): a codec that crashes, and an offset table past the end.

The decoder child really dies of SIGSEGV: codecs are native code, and a crafted image that crashes one of them is mended
in its next version, so the crash is put where the codec is called.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from support import films
from support.crash import CrashNode, Ledger
from support.node import wait_for

MARK = b"SECRET CRASHES THE CODEC"
SITE = f"""
import sys

if "radnode.detect.decoder" in sys.orig_argv:
    import ctypes
    from radnode.detect import pixels

    decode = pixels.decode_pixels

    def crash(part10):
        return ctypes.string_at(0) if {MARK!r} in part10 else decode(part10)

    pixels.decode_pixels = crash
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashNode]:
    folder = tmp_path_factory.mktemp("decoder")
    (folder / "sitecustomize.py").write_text(SITE)
    with CrashNode(folder / "node", overrides={"PYTHONPATH": str(folder)}) as node:
        node.start()
        yield node


def outcomes(node: CrashNode, images: list[Dataset]) -> list[tuple[str, str | None]]:
    """Send images, all of which must be accepted, and return outcome and reason of each."""
    ledger = Ledger(node, images)
    ledger.push(60)
    assert len(ledger.promised) == len(images)
    uids = [str(image.SOPInstanceUID) for image in images]

    def reported() -> dict[str, tuple[str, str | None]] | None:
        found = {row["source"]["SOPInstanceUID"]: (row["outcome"], row["reason"]) for row in node.results()}
        return found if set(uids) <= set(found) else None

    found = wait_for(reported, 60, "every image has its result")
    return [found[uid] for uid in uids]


def test_row_18_codec_that_crashes_costs_its_image_a_failed_report_and_nobody_anything(node: CrashNode) -> None:
    worker = node.pid("worker")
    trapped = [films.fresh(films.NORMAL, ImageComments=MARK.decode()) for _ in range(2)]
    good = [films.fresh(films.NORMAL) for _ in range(3)]
    images = [good[0], trapped[0], good[1], trapped[1], good[2]]
    fine, failed = ("no_finding", None), ("failed", "decoder_crashed")
    assert outcomes(node, images) == [fine, failed, fine, failed, fine]
    assert node.pid("worker") == worker


@pytest.mark.parametrize("offset", [0xFFFFFFF0, 1 << 20, 2])
def test_row_18_offset_table_that_points_elsewhere_ends_nothing(node: CrashNode, offset: int) -> None:
    worker = node.pid("worker")
    film = films.fresh(films.NORMAL)
    film.compress(RLELossless, generate_instance_uid=False)
    table = struct.pack("<HHII", 0xFFFE, 0xE000, 4, offset)  # PS3.5 section A.4
    film.PixelData = table + film.PixelData[8 + struct.unpack_from("<I", film.PixelData, 4)[0] :]
    assert outcomes(node, [film]) == [("no_finding", None)]  # the only frame is found without its table
    assert node.pid("worker") == worker


def test_row_18_nothing_of_the_image_is_in_the_log(node: CrashNode) -> None:
    assert [line["event"] for line in node.log() if line["event"] == "image_analysed"]
    assert MARK not in node.log_path.read_bytes()
