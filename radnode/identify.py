"""Who and what a data set is: its few identifying elements, and those that rules look at, read while it arrives,
touching every length and trusting none (`radnode.elements`).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydicom.charset import python_encoding
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from radnode.attributes import Attributes
from radnode.elements import Walk
from radnode.errors import IdentityMismatch, InvalidUID, MalformedDataSet, ObjectTooLarge

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
_ESCAPE = b"\x1b"  # begins a code extension, PS3.5 section 6.1.2.5
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_SLICE = 4 << 10  # bytes that are inflated at a time: what zlib has not taken yet is copied at each call
_WINDOW = 64 << 10  # bytes that come out at a time, whatever a deflate bomb makes of a slice
# What a deflated data set may become. Deflate reaches 1032:1, for zeros: a blank image comes close to that, and one of
# the first size passes. What is larger passes up to the second ratio, far above that of images and of segmentations,
# so that who sends 2 MB can make this node inflate for a tenth of a second and not for four.
ALWAYS_INFLATED = 64 << 20
MAX_RATIO = 256
NO_ATTRIBUTES = Attributes()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who and what a data set is. UIDs are checked; the patient's identifiers may be empty.

    `attributes` are the values that were asked for, as text (`radnode.attributes`).
    """

    SOPClassUID: str
    SOPInstanceUID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    PatientID: str
    IssuerOfPatientID: str
    attributes: Mapping[str, str] = field(default_factory=dict)


def check_uid(value: str) -> str:
    """Return `value` if it is a UID: digits and dots, at most 64 characters (PS3.5 section 9.1).

    Raises:
        InvalidUID: it is not. Leading zeros of a component are let through, as devices in the field send them.
    """
    if len(value) > 64 or not _UID.fullmatch(value):
        raise InvalidUID("A UID has characters other than digits and dots, or more than 64 of them.")
    return value


class Identifier:
    """Reads the identity of one data set, which comes without preamble and file meta information.

    Args:
        transfer_syntax_uid: how it is encoded; an unknown one is read as explicit VR little endian.
        max_bytes: the limit on a deflated data set once inflated.
        attributes: what else the identity is to say.
    """

    def __init__(self, transfer_syntax_uid: str, max_bytes: int, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self._endian, implicit, deflated = _encoding(transfer_syntax_uid)
        self._attributes = attributes
        self._walk = Walk(WANTED, self._endian, implicit=implicit, noted=attributes.tags)
        self._inflater = _Inflater(max_bytes) if deflated else None
        self._malformed: MalformedDataSet | None = None

    @property
    def StudyInstanceUID(self) -> str | None:
        """The study as soon as it is known.

        Raises:
            IdentityMismatch: the data set leaves it empty.
            InvalidUID: it is not a UID.
        """
        return _uid(self._walk.values, "StudyInstanceUID") if "StudyInstanceUID" in self._walk.values else None

    def feed(self, piece: memoryview) -> None:
        """Read the bytes that follow those fed before; nothing of them is kept but identifying values.

        Raises:
            MalformedDataSet: junk, a lying length, nesting over `MAX_DEPTH`.
            ObjectTooLarge: more than `MAX_ELEMENTS` elements, or it inflates beyond `max_bytes`, or beyond both
            `ALWAYS_INFLATED` and `MAX_RATIO` times what was fed.
        """
        if self._inflater is None:
            self._walk.feed(piece)
            return
        for window in self._inflater.feed(piece):
            if self._malformed is None:
                try:
                    self._walk.feed(memoryview(window))
                except MalformedDataSet as error:  # raised at the end: a deflate bomb is one, whatever it holds
                    self._malformed = error

    def finish(self) -> Identity:
        """Return the identity; everything was fed.

        Raises:
            MalformedDataSet: the data set is cut off.
            IdentityMismatch: a UID that every instance must have is missing.
            InvalidUID: a UID is not one.
        """
        if self._inflater is not None:
            self._inflater.finish()
        if self._malformed is not None:
            raise self._malformed
        self._walk.finish()
        values = self._walk.values
        return _identity(values, self._attributes.text(values, self._endian))


def identify(
    data_set: bytes | memoryview, transfer_syntax_uid: str, max_bytes: int, attributes: Attributes = NO_ATTRIBUTES
) -> Identity:
    """Return the identity of a whole data set; arguments and errors are those of `Identifier`."""
    identifier = Identifier(transfer_syntax_uid, max_bytes, attributes)
    identifier.feed(memoryview(data_set))
    return identifier.finish()


@lru_cache(maxsize=64)
def _encoding(transfer_syntax_uid: str) -> tuple[str, bool, bool]:
    """Return byte order (as in `struct`), whether VRs are implicit, and whether the data set is deflated."""
    syntax = UID(transfer_syntax_uid)
    little = syntax.is_little_endian if syntax.is_transfer_syntax else True
    return "<" if little else ">", syntax == ImplicitVRLittleEndian, syntax == DeflatedExplicitVRLittleEndian


class _Inflater:
    """Inflates raw deflate (PS3.5 section A.5) in windows, never beyond `max_bytes` in all nor far beyond its input."""

    def __init__(self, max_bytes: int) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._max_bytes = max_bytes
        self._fed = self._inflated = 0

    def feed(self, piece: memoryview) -> Iterator[bytes]:
        """Yield what the bytes that follow inflate to; what stands behind the end of the stream is padding."""
        for start in range(0, len(piece), _SLICE):
            deflated: bytes | memoryview = piece[start : start + _SLICE]
            self._fed += len(deflated)
            allowed = min(self._max_bytes, max(ALWAYS_INFLATED, MAX_RATIO * self._fed))
            full = False
            while (deflated or full) and not self._inflate.eof:
                room = min(_WINDOW, allowed + 1 - self._inflated)
                try:
                    window = self._inflate.decompress(deflated, room)
                except zlib.error as error:
                    raise MalformedDataSet("The deflated data set cannot be inflated.") from error
                self._inflated += len(window)
                if self._inflated > allowed:
                    raise ObjectTooLarge(f"The data set inflates to more than {allowed} bytes.")
                deflated, full = self._inflate.unconsumed_tail, len(window) == room
                yield window

    def finish(self) -> None:
        """Raise MalformedDataSet where the stream does not end."""
        if not self._inflate.eof:
            raise MalformedDataSet("The deflated data set is cut off.")


def _identity(values: Mapping[str, bytes], attributes: Mapping[str, str]) -> Identity:
    for keyword in _REQUIRED:
        _present(values, keyword)
    character_set = values.get("SpecificCharacterSet", b"")
    return Identity(
        **{keyword: _uid(values, keyword) for keyword in _REQUIRED},
        PatientID=_text(values.get("PatientID", b""), character_set),
        IssuerOfPatientID=_text(values.get("IssuerOfPatientID", b""), character_set),
        attributes=attributes,
    )


def _present(values: Mapping[str, bytes], keyword: str) -> bytes:
    value = values.get(keyword, b"")
    if not value.strip(b" \0"):
        raise IdentityMismatch(f"The data set has no {keyword}.")
    return value


def _uid(values: Mapping[str, bytes], keyword: str) -> str:
    return check_uid(_present(values, keyword).rstrip(b" \0").decode("latin-1"))


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
