"""Attributes: the values of the elements that rules look at, as text.

One way for all who ask: intake while an image arrives, the worker later, `radnode rules test`. A value is text of its
character set, without the spaces around it; several have a backslash between them; numbers are as Python writes them;
what is missing, empty or not readable is "". Nobody ever sees more than `MAX_CHARACTERS` of it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping

from pydicom.charset import CODES_TO_ENCODINGS, handled_encodings, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword

MAX_CHARACTERS = 256  # of one element, all its values together; bounds what a regular expression has to look at
CHARACTER_SET = "SpecificCharacterSet"

_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # in the data set's character set, PS3.5 section 6.1.2.2
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_NUMBER = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_ESCAPE = re.compile(rb"(?=\x1b)")  # begins a code extension, PS3.5 section 6.1.2.5
_DOUBLE = (b"\x1b$(", b"\x1b$)")  # what begins like this is of four bytes, any other escape sequence of three


class Attributes:
    """The elements of these keywords; `tags` maps their tags to them, for a `radnode.elements.Walk`.

    Raises:
        ValueError: a keyword is none of a Data Element, or of one that has no value to compare (a sequence, pixels).
    """

    def __init__(self, keywords: Iterable[str] = ()) -> None:
        self._representations = {keyword: _representation(keyword) for keyword in keywords}
        self.tags = {tag_for_keyword(keyword) or 0: keyword for keyword in self._representations}

    def text(self, values: Mapping[str, bytes], endian: str) -> dict[str, str]:
        """Return the text of each, given the encoded values that a data set has; `endian` as in `struct`."""
        character_set = values.get(CHARACTER_SET, b"")
        return {
            keyword: _text(values.get(keyword, b""), representation, character_set, endian)[:MAX_CHARACTERS]
            for keyword, representation in self._representations.items()
        }


def _representation(keyword: str) -> str:
    tag = tag_for_keyword(keyword) if keyword else None
    if tag is None:
        raise ValueError("it is not the keyword of a Data Element")
    representation = dictionary_VR(tag)
    if representation not in _TEXT | _ASCII | set(_NUMBER):
        raise ValueError(f"an element of VR {representation} has no value to compare")
    return representation


def _text(value: bytes, representation: str, character_set: bytes, endian: str) -> str:
    if representation in _NUMBER:
        number = struct.Struct(endian + _NUMBER[representation])
        whole = len(value) - len(value) % number.size
        return "\\".join(str(found) for (found,) in number.iter_unpack(value[:whole]))
    text = _decode(value, character_set) if representation in _TEXT else value.decode("latin-1")
    return "\\".join(part.strip(" \0") for part in text.split("\\"))


def _decode(value: bytes, character_set: bytes) -> str:
    """Decode text; what its character set cannot decode is taken as Latin-1 (pydicom would warn, and put U+FFFD)."""
    terms = [term.strip() for term in character_set.decode("latin-1").rstrip("\0").split("\\")]
    first, *escaped = _ESCAPE.split(value)
    try:
        return first.decode(python_encoding.get(terms[0], "latin-1")) + "".join(map(_fragment, escaped))
    except (UnicodeError, LookupError):
        return value.decode("latin-1")


def _fragment(fragment: bytes) -> str:
    """Decode what stands between an escape sequence, which it begins with, and the next."""
    length = 4 if fragment.startswith(_DOUBLE) else 3
    encoding = CODES_TO_ENCODINGS[fragment[:length]]
    # the decoders of some character sets want to see the escape sequence itself
    return (fragment if encoding in handled_encodings else fragment[length:]).decode(encoding)
