"""What stands before the data set of a Part 10 object (PS3.10 section 7.1): read with bounds, and written."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from radnode import __version__
from radnode.errors import MalformedDataSet
from radnode.model import StoreRequest

IMPLEMENTATION_CLASS_UID = "2.25.273478265014592839418327404729384756102"
IMPLEMENTATION_VERSION_NAME = f"RADNODE_{__version__}"

_PREAMBLE = 128
_LONG_FORM = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"})  # PS3.5 7.1.2
_MEDIA_STORAGE_SOP_CLASS_UID = 0x0002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0003
_TRANSFER_SYNTAX_UID = 0x0010


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What a C-STORE needs of the File Meta Information; the data set starts at byte `offset`."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


def read_file_meta(part10: bytes) -> FileMeta:
    """Read group 0002 (explicit VR little endian, PS3.10 section 7.1).

    Raises:
        MalformedDataSet: no `DICM`, a length past the end, or one of the three UIDs is missing.
    """
    if part10[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise MalformedDataSet("The object is not in the DICOM File Format: no DICM after the preamble.")
    offset = _PREAMBLE + 4
    values: dict[int, bytes] = {}
    while part10[offset : offset + 2] == b"\x02\x00":
        try:
            element, vr, short = struct.unpack_from("<2xH2sH", part10, offset)
            start, length = offset + 8, short
            if vr in _LONG_FORM:
                start, length = offset + 12, struct.unpack_from("<I", part10, offset + 8)[0]
        except struct.error as error:
            raise MalformedDataSet("The File Meta Information ends within an element.") from error
        if length > len(part10) - start:
            raise MalformedDataSet("An element of the File Meta Information is longer than the object.")
        values[element] = part10[start : start + length]
        offset = start + length
    return FileMeta(
        _uid(values, _MEDIA_STORAGE_SOP_CLASS_UID),
        _uid(values, _MEDIA_STORAGE_SOP_INSTANCE_UID),
        _uid(values, _TRANSFER_SYNTAX_UID),
        offset,
    )


def _uid(values: dict[int, bytes], element: int) -> str:
    """Return one UID of group 0002 without its padding."""
    value = values.get(element, b"").rstrip(b"\0 ")
    if not value or not value.isascii():
        raise MalformedDataSet(f"The File Meta Information has no UID in (0002,{element:04X}).")
    return value.decode("ascii")


def file_header(request: StoreRequest) -> bytes:
    """Return preamble and File Meta Information for a received data set.

    The preamble is always zeros: what a peer puts there is never kept. Written here and not by pydicom, which complains
    about the UIDs that devices in the field really send.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),  # File Meta Information Version
            _element(_MEDIA_STORAGE_SOP_CLASS_UID, b"UI", request.sop_class_uid.encode("ascii")),
            _element(_MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", request.sop_instance_uid.encode("ascii")),
            _element(_TRANSFER_SYNTAX_UID, b"UI", request.transfer_syntax_uid.encode("ascii")),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
            _element(0x0016, b"AE", request.peer.ae_title.encode("ascii")),  # Source Application Entity Title
        )
    )
    return bytes(_PREAMBLE) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element of group 0002 (explicit VR little endian), padded to an even length."""
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    length = struct.pack("<2xI" if vr == b"OB" else "<H", len(value))
    return struct.pack("<HH2s", 0x0002, number, vr) + length + value
