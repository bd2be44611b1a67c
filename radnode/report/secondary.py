"""The secondary objects of one analysis, for those who do not show the report.

    sc      Secondary Capture: a picture of each image that findings lie on (at most `model.MAX_PICTURES`)
    gsps    Grayscale Softcopy Presentation State: the outlines as an overlay on the originals
    kos     Key Object Selection: the images that findings lie on, with report and pictures
    seg     Segmentation: the masks of a detector that gives any

The same sources, analysis, acceptance time and views give the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydicom.dataset import Dataset

from radnode.model import View
from radnode.report.secondary_capture import secondary_capture
from radnode.report.secondary_gsps import presentation_state
from radnode.report.secondary_header import Kind, Origin
from radnode.report.secondary_kos import key_objects
from radnode.report.secondary_seg import segmentation


def build_secondary(
    origin: Origin, kinds: Collection[str], views: Mapping[int, View], report: Dataset
) -> list[tuple[Kind, Dataset]]:
    """Return the objects of these kinds that the analysis gives, pictures first.

    `views` are the images to make pictures of, by their number among the sources, from 1; `report` is the header of
    the structured report. An analysis without result has none: its report says why.
    """
    if origin.analysis.reason is not None:
        return []
    pictures = []
    if "sc" in kinds:
        pictures = [
            secondary_capture(origin, number, view, frame) for number, (frame, view) in enumerate(views.items(), 1)
        ]
    made: list[tuple[Kind, Dataset]] = [("sc", picture) for picture in pictures]
    if "gsps" in kinds and (overlay := presentation_state(origin, views)) is not None:
        made.append(("gsps", overlay))
    if "kos" in kinds and (selection := key_objects(origin, report, pictures)) is not None:
        made.append(("kos", selection))
    if "seg" in kinds and (segments := segmentation(origin)) is not None:
        made.append(("seg", segments))
    return made
