"""What is sent: CT slices and a large X-ray film as C-STORE messages whose PDUs are built before the clock runs.

Sizes are in bytes. Every UID that is exchanged between two sendings has the same length, so that a message is
made unique by overwriting it in place.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from benchmarks import ROOT
from radnode.network.command_set import Command, Tag, encode

MAX_PDU = 131072  # bytes of a P-DATA-TF's variable field at most, where the server announces more
DX_SHAPE = (2560, 2048)  # rows, columns; 16 bit: 10.5 MB
_UID_DIGITS = 35  # after "2.25."; below 2**128, as ITU-T X.667 has it
_STUDY, _SERIES, _INSTANCE = (f"2.25.{digit * _UID_DIGITS}" for digit in "123")
_PDV = struct.Struct(">BxLLBB")  # P-DATA-TF with one presentation data value, PS3.8 Table 9-22
_SLICES = ROOT / "tests/data/ct_lidc_0001"
_FILM = ROOT / "tests/data/cxr_normal.dcm"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object: its SOP class and encoded data sets (explicit VR little endian) to send in turn."""

    name: str
    sop_class_uid: str
    data_sets: tuple[bytes, ...]

    def in_new_study(self) -> tuple[bytes, ...]:
        """Return the data sets with a study and a series of their own."""
        study, series = new_uid().encode(), new_uid().encode()
        return tuple(one.replace(_STUDY.encode(), study).replace(_SERIES.encode(), series) for one in self.data_sets)


class Message:
    """A C-STORE-RQ with its data set as one buffer of PDUs, sent many times under another SOP Instance UID."""

    def __init__(self, data_set: bytes, sop_class_uid: str, context_id: int, max_pdu: int) -> None:
        command = encode(
            {
                Tag.AFFECTED_SOP_CLASS_UID: sop_class_uid,
                Tag.COMMAND_FIELD: Command.C_STORE,
                Tag.MESSAGE_ID: 1,
                Tag.PRIORITY: 0,
                Tag.COMMAND_DATA_SET_TYPE: 1,
                Tag.AFFECTED_SOP_INSTANCE_UID: _INSTANCE,
            }
        )
        limit = min(max_pdu or MAX_PDU, MAX_PDU)
        pieces = [*_pdus(context_id, command, 0x01, limit), *_pdus(context_id, data_set, 0x00, limit)]
        self.buffer = memoryview(bytearray(b"".join(pieces)))
        self.data_set_bytes = len(data_set)
        self._offsets = list(_places(bytes(self.buffer), _INSTANCE.encode()))
        if len(self._offsets) != 2:
            raise ValueError("the SOP Instance UID stands not once in the command and once in the data set")

    def name(self, SOPInstanceUID: bytes) -> None:
        """Make it another instance."""
        for offset in self._offsets:
            self.buffer[offset : offset + len(SOPInstanceUID)] = SOPInstanceUID


def new_uid() -> str:
    """Return a UID nobody used, as long as every other one here."""
    return f"2.25.{10 ** (_UID_DIGITS - 1) + secrets.randbelow(8 * 10 ** (_UID_DIGITS - 1))}"


def ct() -> Kind:
    """Return the bundled CT slices as modalities send them: 512 x 512, 16 bit, uncompressed, 525 KB."""
    slices = []
    for path in sorted(_SLICES.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.decompress()
        slices.append(_encoded(dataset))
    return Kind("ct", str(dataset.SOPClassUID), tuple(slices))


def film() -> Kind:
    """Return the bundled chest film as a CR sends it: 512 x 512, 8 bit, uncompressed, 0.26 MB."""
    dataset = pydicom.dcmread(_FILM)
    return Kind("cr", str(dataset.SOPClassUID), (_encoded(dataset),))


def dx() -> Kind:
    """Return the bundled chest film, enlarged to a digital X-ray of 10 MB."""
    dataset = pydicom.dcmread(_FILM)
    small = dataset.pixel_array
    rows, columns = (np.arange(length) * side // length for length, side in zip(DX_SHAPE, small.shape, strict=True))
    dataset.Rows, dataset.Columns = DX_SHAPE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.Modality = "DX"
    dataset.PixelData = (small[rows][:, columns].astype("<u2") << 4).tobytes()
    return Kind("dx", str(dataset.SOPClassUID), (_encoded(dataset),))


def write_files(kind: Kind, folder: Path, count: int) -> list[Path]:
    """Write `count` different instances of one study as PS3.10 files and return their paths."""
    folder.mkdir()
    paths = []
    data_sets = kind.in_new_study()
    for number in range(count):
        instance = new_uid()
        meta = Dataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind.sop_class_uid, instance
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        head = BytesIO()
        pydicom.filewriter.write_file_meta_info(head, pydicom.dataset.FileMetaDataset(meta))
        paths.append(folder / f"{number:05}.dcm")
        body = data_sets[number % len(data_sets)].replace(_INSTANCE.encode(), instance.encode())
        paths[-1].write_bytes(bytes(128) + b"DICM" + head.getvalue() + body)
    return paths


def _encoded(dataset: Dataset) -> bytes:
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = _STUDY, _SERIES, _INSTANCE
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    del dataset.file_meta
    pydicom.filewriter.write_dataset(buffer, dataset)
    return buffer.getvalue()


def _pdus(context_id: int, content: bytes, control: int, limit: int) -> Iterator[bytes]:
    room = (limit - 6) & ~1
    for start in range(0, len(content), room):
        fragment = content[start : start + room]
        last = 0x02 if start + room >= len(content) else 0
        yield _PDV.pack(0x04, len(fragment) + 6, len(fragment) + 2, context_id, control | last) + fragment


def _places(content: bytes, what: bytes) -> Iterator[int]:
    place = content.find(what)
    while place >= 0:
        yield place
        place = content.find(what, place + 1)
