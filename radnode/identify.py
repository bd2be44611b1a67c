"""Read the few identifying elements of a data set, touching every length and trusting none.

A walk over the elements (PS3.5 section 7) that allocates nothing in proportion to what a length claims: each length
is checked against what is there, nesting against `MAX_DEPTH`, the number of elements against `MAX_ELEMENTS`.
Values are kept only for the identifying elements of the top level.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from dataclasses import dataclass

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from radnode.errors import IdentityMismatch, InvalidUID, MalformedDataSet, ObjectTooLarge

MAX_DEPTH = 32
MAX_ELEMENTS = 500_000
MAX_VALUE = 1024  # bytes of an identifying value; the longest VR among them (LO, multi-byte) stays far below
UNDEFINED = 0xFFFFFFFF

SPECIFIC_CHARACTER_SET = 0x00080005
WANTED = {
    SPECIFIC_CHARACTER_SET: "SpecificCharacterSet",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00100020: "PatientID",
    0x00100021: "IssuerOfPatientID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VR = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VR = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_ESCAPE = b"\x1b"  # begins a code extension, PS3.5 section 6.1.2.5
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who and what a data set is. UIDs are checked; the patient's identifiers may be empty."""

    SOPClassUID: str
    SOPInstanceUID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    PatientID: str
    IssuerOfPatientID: str


@dataclass(slots=True)
class _Level:
    """One open level of nesting; `end` is None where a delimiter ends it."""

    kind: str  # "data set", "item", "sequence" or "fragments"
    end: int | None
    implicit: bool


def check_uid(value: str) -> str:
    """Return `value` if it is a UID: digits and dots, at most 64 characters (PS3.5 section 9.1).

    Raises:
        InvalidUID: it is not. Leading zeros of a component are let through, as devices in the field send them.
    """
    if len(value) > 64 or not _UID.fullmatch(value):
        raise InvalidUID("A UID has characters other than digits and dots, or more than 64 of them.")
    return value


def identify(data_set: bytes | memoryview, transfer_syntax_uid: str, max_bytes: int) -> Identity:
    """Walk an encoded data set and return its identity.

    Args:
        data_set: the encoded data set without preamble and file meta information.
        transfer_syntax_uid: how it is encoded; an unknown one is read as explicit VR little endian.
        max_bytes: the limit on a deflated data set once inflated.

    Raises:
        MalformedDataSet: junk, truncated, a length beyond the data, nesting over `MAX_DEPTH`.
        ObjectTooLarge: more than `MAX_ELEMENTS` elements, or inflates beyond `max_bytes`.
        IdentityMismatch: a UID that every instance must have is missing.
        InvalidUID: a UID is not one.
    """
    syntax = UID(transfer_syntax_uid)
    if syntax == DeflatedExplicitVRLittleEndian:
        data_set = _inflate(data_set, max_bytes)
    little = syntax.is_little_endian if syntax.is_transfer_syntax else True
    values = _Walk(memoryview(data_set), "<" if little else ">", syntax == ImplicitVRLittleEndian).run()
    return _identity(values)


class _Walk:
    """One pass over the elements."""

    def __init__(self, data: memoryview, endian: str, implicit: bool) -> None:
        self._data = data
        self._position = 0
        self._tag = struct.Struct(endian + "HH")
        self._long = struct.Struct(endian + "I")
        self._short = struct.Struct(endian + "H")
        self._levels = [_Level("data set", len(data), implicit)]
        self._values: dict[str, bytes] = {}

    def run(self) -> dict[str, bytes]:
        """Return the raw values of the wanted elements."""
        elements = 0
        while self._levels:
            level = self._levels[-1]
            if level.end is not None and self._position >= level.end:
                if self._position > level.end:
                    raise MalformedDataSet("An element is longer than the sequence item that holds it.")
                self._levels.pop()
                continue
            elements += 1
            if elements > MAX_ELEMENTS:
                raise ObjectTooLarge(f"The data set has more than {MAX_ELEMENTS} elements.")
            group, element = self._unpack(self._tag, 4)
            tag = group << 16 | element
            if group == 0xFFFE:
                self._delimiter(level, tag)
            elif level.kind in ("sequence", "fragments"):
                raise MalformedDataSet("A sequence holds something other than items.")
            else:
                self._element(level, tag)
        return self._values

    def _element(self, level: _Level, tag: int) -> None:
        vr, length = self._vr_and_length(level.implicit)
        top = len(self._levels) == 1
        if length == UNDEFINED:
            if tag == _PIXEL_DATA:
                self._open("fragments", None, level.implicit)
            elif vr in (b"SQ", b"UN", b""):
                # PS3.5 section 6.2.2 Note 2: UN of undefined length is an implicit VR sequence
                self._open("sequence", None, level.implicit or vr == b"UN")
            else:
                raise MalformedDataSet("An element of undefined length is not a sequence.")
            return
        end = self._bounded(length)
        if vr == b"SQ" or (not vr and self._looks_like_items(end) and _is_sequence(tag)):
            self._open("sequence", end, level.implicit)
            return
        if top and tag in WANTED:
            keyword = WANTED[tag]
            if keyword in self._values:
                raise MalformedDataSet("An identifying element stands twice in the data set.")
            if length > MAX_VALUE:
                raise MalformedDataSet("An identifying element is longer than any value it may have.")
            self._values[keyword] = bytes(self._data[self._position : end])
        self._position = end

    def _vr_and_length(self, implicit: bool) -> tuple[bytes, int]:
        if implicit:
            return b"", self._unpack(self._long, 4)[0]
        vr = bytes(self._take(2))
        if vr in _SHORT_VR:
            return vr, self._unpack(self._short, 2)[0]
        if vr in _LONG_VR:
            self._take(2)
            return vr, self._unpack(self._long, 4)[0]
        raise MalformedDataSet("An element has no value representation of the standard.")

    def _delimiter(self, level: _Level, tag: int) -> None:
        length = self._unpack(self._long, 4)[0]
        if tag == _ITEM and level.kind == "sequence":
            self._open("item", None if length == UNDEFINED else self._bounded(length), level.implicit)
        elif tag == _ITEM and level.kind == "fragments":
            self._position = self._bounded(length)
        elif level.end is None and (
            (tag == _ITEM_END and level.kind == "item")
            or (tag == _SEQUENCE_END and level.kind in ("sequence", "fragments"))
        ):
            self._levels.pop()
        else:
            raise MalformedDataSet("An item or a delimiter stands where none may be.")

    def _open(self, kind: str, end: int | None, implicit: bool) -> None:
        if len(self._levels) > 2 * MAX_DEPTH:  # a nested data set opens two levels: sequence and item
            raise MalformedDataSet(f"Sequences are nested deeper than {MAX_DEPTH}.")
        self._levels.append(_Level(kind, end, implicit))

    def _looks_like_items(self, end: int) -> bool:
        """Say whether a value, up to `end`, begins with an item: implicit VR does not name its sequences."""
        return end - self._position >= 8 and self._tag.unpack_from(self._data, self._position) == (0xFFFE, 0xE000)

    def _bounded(self, length: int) -> int:
        """Return the position `length` bytes on, which must lie within what encloses it."""
        end = self._position + length
        limit = next((level.end for level in reversed(self._levels) if level.end is not None), len(self._data))
        if end > limit:
            raise MalformedDataSet("An element is longer than the data that holds it.")
        return end

    def _take(self, count: int) -> memoryview:
        start = self._position
        self._position += count
        if self._position > len(self._data):
            raise MalformedDataSet("The data set ends within an element.")
        return self._data[start : self._position]

    def _unpack(self, layout: struct.Struct, size: int) -> tuple[int, ...]:
        values: tuple[int, ...] = layout.unpack(self._take(size))
        return values


def _is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _inflate(data_set: bytes | memoryview, max_bytes: int) -> bytes:
    """Inflate raw deflate (PS3.5 section A.5), never beyond `max_bytes`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data_set, max_bytes + 1)
    except zlib.error as error:
        raise MalformedDataSet("The deflated data set cannot be inflated.") from error
    if len(inflated) > max_bytes:
        raise ObjectTooLarge(f"The data set inflates to more than {max_bytes} bytes.")
    if not inflater.eof:
        raise MalformedDataSet("The deflated data set is cut off.")
    return inflated


def _identity(values: dict[str, bytes]) -> Identity:
    if missing := [keyword for keyword in _REQUIRED if not values.get(keyword, b"").strip(b" \0")]:
        raise IdentityMismatch(f"The data set has no {missing[0]}.")
    uids = {keyword: check_uid(values[keyword].rstrip(b" \0").decode("latin-1")) for keyword in _REQUIRED}
    character_set = values.get("SpecificCharacterSet", b"")
    return Identity(
        **uids,
        PatientID=_text(values.get("PatientID", b""), character_set),
        IssuerOfPatientID=_text(values.get("IssuerOfPatientID", b""), character_set),
    )


def _text(value: bytes, character_set: bytes) -> str:
    """Decode a LO value. What its character set cannot decode is taken as Latin-1, and so is one with escape sequences.

    pydicom would warn and put U+FFFD in the place of what it cannot decode: two patients would become one.
    """
    term = character_set.decode("latin-1").rstrip("\0").split("\\")[0].strip()
    try:
        text = value.decode("latin-1" if _ESCAPE in value else python_encoding.get(term, "latin-1"))
    except UnicodeError:
        text = value.decode("latin-1")
    return unicodedata.normalize("NFC", text.strip(" \0"))
