"""Elements of a source header exactly as they were received.

The patient and study modules of a report must match what the PACS already holds, so their values are never decoded:
what came over the network is copied byte for byte, whatever character set it claims. Only the encoding around the
values changes, to Explicit VR Little Endian.
Nothing here raises because of what a header holds: what cannot be read is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from typing import cast

import pydicom.config
from pydicom.charset import STAND_ALONE_ENCODINGS, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR, validate_value
from pydicom.values import convert_SQ

_DEFAULT_ENCODING = "iso8859"
_MAX_DEPTH = 16  # of nested sequences; deeper ones are left out
_SHORT_LENGTH = 0xFFFE  # PS3.5 section 7.1.2: values of most VRs have a length of 16 bits, and even
_WORD = {"US": 2, "SS": 2, "AT": 2, "OW": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
_WORD |= {"FD": 8, "OD": 8, "UV": 8, "SV": 8, "OV": 8}

_RESTRICTED = frozenset({"AS", "CS", "DA", "DS", "DT", "IS", "TM"})

# What pydicom raises on a sequence whose bytes are not one.
_UNREADABLE = (
    ValueError, OSError, EOFError, LookupError, TypeError, AttributeError,
    NotImplementedError, RecursionError, struct.error,
)  # fmt: skip


def text(dataset: Dataset, keyword: str) -> str:
    """The value of an element whose alphabet is ASCII (UI, CS, DA, IS, ...), trimmed; "" when absent or empty."""
    tag = _tag(keyword)
    item = dataset.get_item(tag) if tag in dataset else None
    if isinstance(item, DataElement) and isinstance(item.value, str):
        return item.value.encode("ascii", "replace").decode().strip("\0 ")
    value = _value(dataset, tag, _DEFAULT_ENCODING)
    return "" if value is None else value.decode("ascii", "replace").strip("\0 ")


def elements(dataset: Dataset, keywords: Iterable[str], charset: str | list[str] | None = None) -> list[RawDataElement]:
    """Those of the named elements that the data set has, in Explicit VR Little Endian, values as received.

    `charset` is that of the data set around an item; it matters only for values made in memory.
    """
    charset = charset or encodings(dataset)
    found = (_element(dataset, _tag(keyword), charset, 0) for keyword in keywords)
    return [item for item in found if item is not None]


def is_legal(item: RawDataElement) -> bool:
    """Whether every value of an element with a restricted alphabet (AS, DA, DS, ...) follows its VR (PS3.5 6.2)."""
    if item.VR not in _RESTRICTED:
        return True
    try:
        for value in (item.value or b"").decode("ascii").rstrip(" \0").split("\\"):
            validate_value(item.VR, value, pydicom.config.RAISE)
    except ValueError:
        return False
    return True


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none when it is absent or unreadable."""
    tag = _tag(keyword)
    return _items(_stored(dataset, tag)) if tag in dataset else []


def sequence(keyword: str, contents: Iterable[Iterable[RawDataElement]]) -> RawDataElement:
    """A sequence made of items, each given by its elements."""
    tag = _tag(keyword)
    value = b"".join(_item_bytes(content) for content in contents)
    return RawDataElement(tag, "SQ", len(value), value, 0, False, True)


def encodings(dataset: Dataset) -> str | list[str]:
    """The Specific Character Set as pydicom's writer wants it; ISO 8859-1 when it is none that can be used."""
    terms = text(dataset, "SpecificCharacterSet").split("\\")
    terms = [term.strip() for term in terms]
    alone = len(terms) == 1 or not set(terms) & set(STAND_ALONE_ENCODINGS)
    return terms if alone and all(term in python_encoding for term in terms) else _DEFAULT_ENCODING


def _element(dataset: Dataset, tag: BaseTag, charset: str | list[str], depth: int) -> RawDataElement | None:
    if tag not in dataset:
        return None
    item = _stored(dataset, tag)
    VR = _representation(tag, item.VR)
    if VR == "SQ":
        if depth >= _MAX_DEPTH:
            return None
        children = (
            (_element(nested, key, charset, depth + 1) for key in sorted(nested.keys())) for nested in _items(item)
        )
        value = b"".join(_item_bytes(child for child in content if child is not None) for content in children)
    else:
        value = _value(dataset, tag, charset) or b""
        value += (b"\0" if VR in {"UI", "OB", "UN"} else b" ") * (len(value) % 2)
        if VR not in EXPLICIT_VR_LENGTH_32 and len(value) > _SHORT_LENGTH:
            VR = "UN"  # PS3.5 section 6.2.2 note 2: the value does not fit its own VR in an explicit encoding
    return RawDataElement(tag, VR, len(value), value, 0, False, True)


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not the keyword of a data element.")
    return Tag(tag)


def _representation(tag: BaseTag, received: str | None) -> str:
    """The dictionary's VR, which a sender may have got wrong; the received one for what the dictionary lacks."""
    try:
        known = dictionary_VR(tag)
    except KeyError:
        known = received if received in STANDARD_VR else "UN"
    return known[:2] if len(known) > 2 else known  # "US or SS" is US for the few elements where it can matter


def _stored(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    """What the data set holds, undecoded if nobody has asked for it yet (get_item's annotation leaves that out)."""
    return cast(DataElement | RawDataElement, dataset.get_item(tag))


def _value(dataset: Dataset, tag: BaseTag, charset: str | list[str]) -> bytes | None:
    if tag not in dataset:
        return None
    item = _stored(dataset, tag)
    if isinstance(item, RawDataElement):
        return _little_endian(item)
    # Somebody has decoded it already (or made it in memory): encode it as it would have been sent.
    buffer = _buffer()
    write_data_element(buffer, item, charset)
    header = 12 if item.VR in EXPLICIT_VR_LENGTH_32 else 8
    return buffer.getvalue()[header:]


def _little_endian(item: RawDataElement) -> bytes:
    value = item.value or b""
    size = _WORD.get(_representation(item.tag, item.VR), 1)
    if item.is_little_endian or size == 1:
        return value
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))


def _items(item: DataElement | RawDataElement) -> list[Dataset]:
    if not isinstance(item, RawDataElement):
        return list(item.value or []) if item.VR == "SQ" else []
    unknown = item.VR == "UN"  # PS3.5 section 6.2.2: what is sent as UN is Implicit VR Little Endian inside
    try:
        return list(convert_SQ(item.value or b"", unknown or item.is_implicit_VR, unknown or item.is_little_endian))
    except _UNREADABLE:
        return []


def _item_bytes(content: Iterable[RawDataElement]) -> bytes:
    buffer = _buffer()
    for item in sorted(content, key=lambda each: each.tag):
        write_data_element(buffer, item)
    value = buffer.getvalue()
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value  # PS3.5 Table 7.5-1


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    return buffer
