"""What all secondary objects have in common: whose they are (as received), who made them and when, and their UIDs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from radnode.model import Analysis
from radnode.report import header, received, uids

Kind = Literal["sc", "gsps", "kos", "seg"]

_SERIES_NUMBER = {"sc": 9901, "gsps": 9902, "kos": 9903, "seg": 9904}  # after that of the reports
# General Series (PS3.3 C.7.3.1): Laterality is there under a condition that depends on these.
_BODY_PART = ("BodyPartExamined", "Laterality")
# Of body parts that are there once (PS3.16 Annex L) Laterality must be absent; of others it is empty where unknown.
_UNPAIRED = frozenset(
    {
        *("ABDOMEN", "ABDOMENPELVIS", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "COLON", "CSPINE"),
        *("HEAD", "HEADNECK", "HEART", "LIVER", "LSPINE", "MEDIASTINUM", "NECK", "PANCREAS", "PELVIS", "SKULL"),
        *("SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TSPINE", "UTERUS", "WHOLEBODY"),
    }
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a secondary object comes from: the headers of the analysed images, and what was said about them.

    `accepted_at` is when the node accepted the source, aware; a `Region.frame` counts `sources` from 1 where there are
    several of them.
    """

    sources: Sequence[Dataset]
    analysis: Analysis
    accepted_at: datetime
    software_version: str
    station_name: str

    def source_of(self, frame: int | None) -> Dataset:
        """Return the header of the image that a region, or a picture, lies on."""
        return self.sources[(frame or 1) - 1] if len(self.sources) > 1 else self.sources[0]

    def reference(self, *frames: int | None) -> Dataset:
        """Return an item that names that image; where there is but one source, with these frames of it."""
        return reference(self.source_of(frames[0]), *(frames if len(self.sources) == 1 else ()))

    @property
    def moment(self) -> datetime:
        """When the source was accepted, in the time zone that it states."""
        return self.accepted_at.astimezone(header.zone(self.sources[0]) or self.accepted_at.tzinfo)


def begin(origin: Origin, kind: Kind, number: int, sop_class: str, Modality: str) -> Dataset:
    """Return a new instance with patient, study, series, equipment and SOP Common modules.

    `number` counts the instances of this kind of one analysis, from 1.
    """
    source, model, moment = origin.sources[0], origin.analysis.model, origin.moment
    made = Dataset()
    header.add_patient_and_study(made, source)
    header.add_equipment(made, model, origin.software_version, origin.station_name)
    if kind != "kos":
        made.Laterality = ""
        for item in filter(received.is_legal, received.elements(source, _BODY_PART)):
            made[item.tag] = item
        # A segmentation has it in the anatomic region of its segments, and must not have it here.
        if kind == "seg" or received.text(source, "BodyPartExamined") in _UNPAIRED:
            del made.Laterality
    SOPInstanceUIDs = [received.text(each, "SOPInstanceUID") for each in origin.sources]
    made.SOPClassUID = UID(sop_class)
    made.SOPInstanceUID = UID(uids.document_uid(SOPInstanceUIDs, model.digest, f"{kind} {number}"))
    StudyInstanceUID = received.text(source, "StudyInstanceUID")
    made.SeriesInstanceUID = UID(uids.derive_uid("secondary series", StudyInstanceUID, model.digest, kind))
    made.SeriesNumber = _SERIES_NUMBER[kind]
    made.SeriesDescription = header.SERIES_DESCRIPTION
    made.Modality = Modality
    made.InstanceNumber = number
    made.TimezoneOffsetFromUTC = f"{moment:%z}"[:5]
    made.InstanceCreationDate = made.ContentDate = f"{moment:%Y%m%d}"
    made.InstanceCreationTime = made.ContentTime = f"{moment:%H%M%S.%f}"
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def size(image: Dataset) -> tuple[int, int]:
    """Return rows and columns; they are there and sound, for the image was decoded."""
    rows, columns = received.elements(image, ("Rows", "Columns"))
    return int.from_bytes(rows.value or b"", "little"), int.from_bytes(columns.value or b"", "little")


def reference(source: Dataset, *frames: int | None) -> Dataset:
    """Return an item that names an instance, and those of its frames that are not None (PS3.3 Table 10-3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = received.text(source, "SOPClassUID")
    item.ReferencedSOPInstanceUID = received.text(source, "SOPInstanceUID")
    if numbers := [frame for frame in frames if frame is not None]:
        item.ReferencedFrameNumber = numbers
    return item


def referenced_series(images: Sequence[Dataset], keyword: str) -> list[Dataset]:
    """Return the images by their series, each once, under this keyword (PS3.3 C.11.11 and C.12.2)."""
    series: dict[str, dict[str, Dataset]] = {}
    for image in images:
        found = series.setdefault(received.text(image, "SeriesInstanceUID"), {})
        found.setdefault(received.text(image, "SOPInstanceUID"), reference(image))
    made = []
    for uid, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        setattr(item, keyword, list(references.values()))
        made.append(item)
    return made
