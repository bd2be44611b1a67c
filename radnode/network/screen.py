"""An A-ASSOCIATE-RQ is looked through before pynetdicom decodes it (PS3.8 section 9.3.2).

pynetdicom stops at an illegal AE title instead of rejecting it, compares the protocol version as a number, and
hands every UID to pydicom, which warns on stderr with the peer's own text in the warning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_CALLED, _CALLING = slice(10, 26), slice(26, 42)
_ITEMS = 74  # offset of the variable items
_STAND_IN = b"ILLEGAL         "
_ITEM = struct.Struct(">BxH")
_UID = re.compile(rb"[0-9.]{1,64}[\0 ]?")

_SUB_ITEMS_FROM = {0x20: 4, 0x21: 4, 0x50: 0}  # presentation contexts, after their ID; user information
_IS_UID = frozenset({0x10, 0x30, 0x40, 0x52})  # application context, abstract and transfer syntax, implementation
_BEGINS_WITH_UID = frozenset({0x54, 0x56})  # role selection, extended negotiation
_COMMON_EXTENDED = 0x57  # PS3.7 Table D.3-13: SOP class, service class, length of the rest, related SOP classes


def titles(request: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return Called and Calling AE Title, 16 bytes each, as they came."""
    return bytes(request[_CALLED]), bytes(request[_CALLING])


def supports_version_1(request: bytes | bytearray) -> bool:
    """Say whether bit 0 of the protocol version is set; the others are not to be tested."""
    return bool(request[7] & 1)


def make_decodable(request: bytearray) -> None:
    """Change what pynetdicom would stumble over: version bits beside bit 0, and illegal titles.

    Raises:
        ValueError: an item is longer than what holds it or stands where it may not, or a UID has other characters
            than digits and periods.
    """
    if supports_version_1(request):
        request[6:8] = b"\x00\x01"
    for title in (_CALLED, _CALLING):
        text = request[title]
        if not text.strip(b" ") or b"\\" in text or min(text) < 0x20 or max(text) > 0x7E:
            request[title] = _STAND_IN
    for item_type, content in _items(bytes(request[_ITEMS:])):
        _check_item(item_type, content)
        if item_type in _SUB_ITEMS_FROM:
            for sub_item_type, sub_content in _items(content[_SUB_ITEMS_FROM[item_type] :]):
                if sub_item_type in _SUB_ITEMS_FROM:  # pynetdicom would descend as deep as the peer likes
                    raise ValueError("an item holds one that may only stand by itself")
                _check_item(sub_item_type, sub_content)


def _check_item(item_type: int, content: bytes) -> None:
    """Check the UID of an item or sub-item that is or begins with one."""
    if item_type in _IS_UID:
        _check_uid(content)
    elif item_type in _BEGINS_WITH_UID:
        _check_counted_uid(content, 0)
    elif item_type == _COMMON_EXTENDED:
        offset = _check_counted_uid(content, _check_counted_uid(content, 0)) + 2
        while offset < len(content):
            offset = _check_counted_uid(content, offset)


def _check_counted_uid(content: bytes, offset: int) -> int:
    """Check the UID behind the length at `offset` and return where it ends."""
    start = offset + 2
    end = start + int.from_bytes(content[offset:start], "big")
    _check_uid(content[start:end])
    return end


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each item."""
    offset = 0
    while offset < len(encoded):
        if len(encoded) - offset < _ITEM.size:
            raise ValueError("the request ends within an item header")
        item_type, length = _ITEM.unpack_from(encoded, offset)
        offset += _ITEM.size
        if length > len(encoded) - offset:
            raise ValueError("an item is longer than what holds it")
        yield item_type, encoded[offset : offset + length]
        offset += length


def _check_uid(value: bytes) -> None:
    if not _UID.fullmatch(value):
        raise ValueError("a UID has other characters than digits and periods")
