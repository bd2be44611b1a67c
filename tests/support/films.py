"""The bundled images and variants of them, made on the fly."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit, generate_uid

DATA = Path(__file__).parents[1] / "data"
OPACITY = DATA / "cxr_opacity.dcm"  # DX, radiologists saw an opacity
NORMAL = DATA / "cxr_normal.dcm"  # CR, radiologists saw nothing
CT = sorted((DATA / "ct_lidc_0001").glob("*.dcm"))  # 16 slices, feet first
MR = Path(str(get_testdata_file("MR_small.dcm", download=False)))

# Specific Character Set and a name that needs it.
LATIN = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}
JAPANESE = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"}
KOREAN = {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞=홍^길동"}
GB18030 = {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东"}
UTF_8 = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "山田^太郎"}
NO_CHARACTER_SET = {"SpecificCharacterSet": None, "PatientName": "Doe^Jane"}


def fresh(path: Path, **elements: object) -> Dataset:
    """The image under new study, series and SOP instance UIDs, with these elements; None deletes one."""
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID = generate_uid(prefix=None)
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    if "SpecificCharacterSet" in elements:  # before any text, which is encoded by it
        _set(dataset, "SpecificCharacterSet", elements["SpecificCharacterSet"])
    for keyword, value in elements.items():
        _set(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def undecodable(path: Path, **elements: object) -> Dataset:
    """A fresh image whose pixels claim to be JPEG and are not."""
    dataset = fresh(path, **elements)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([b"\xff\xd8 this is no image \xff\xd9"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def with_raw(dataset: Dataset, keyword: str, vr: str, value: bytes) -> Dataset:
    """The image with these bytes as the value of one element, whatever they are."""
    tag = Tag(tag_for_keyword(keyword))
    value += b" " * (len(value) % 2)
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return dataset


def file_bytes(dataset: Dataset) -> bytes:
    """The image as a DICOM file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def received(dataset: Dataset) -> Dataset:
    """The header as a node holds it after receiving the image: nothing decoded, no pixels."""
    return pydicom.dcmread(io.BytesIO(file_bytes(dataset)), stop_before_pixels=True)


def _set(dataset: Dataset, keyword: str, value: object) -> None:
    if value is not None:
        setattr(dataset, keyword, value)
    elif keyword in dataset:
        delattr(dataset, keyword)
