"""An A-ASSOCIATE-RQ is looked through before pynetdicom decodes it (PS3.8 section 9.3.2).

pynetdicom stops at an illegal AE title instead of rejecting it, compares the protocol version as a number, raises
at an item that it does not know, and hands every UID to pydicom, which warns on stderr with the peer's own text in
the warning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_CALLED, _CALLING = slice(10, 26), slice(26, 42)
_ITEMS = 74  # offset of the variable items
_STAND_IN = b"ILLEGAL         "
_ITEM = struct.Struct(">BxH")
_LENGTH = struct.Struct(">L")
_STORAGE_COMMITMENT = b"1.2.840.10008.1.20.1"
_UID = re.compile(rb"[0-9.]{1,64}[\0 ]?")

_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX, _MAXIMUM_LENGTH, _ROLE_SELECTION = 0x30, 0x40, 0x51, 0x54
_IS_UID = frozenset({_APPLICATION_CONTEXT, _ABSTRACT_SYNTAX, _TRANSFER_SYNTAX})

# What is read of a request and of the items that hold others. Anything else is ignored: what the standard does not know
# yet (PS3.8 Annex D.2), and the user information that this node negotiates nothing of. No answer to an asynchronous
# operations window, an extended negotiation, a user identity, or a role selection of any SOP Class but Storage
# Commitment is an answer: the defaults hold, and no identity is used (PS3.7 Annex D.3.3).
_READ = frozenset({_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION})
_READ_WITHIN = {
    _PRESENTATION_CONTEXT: frozenset({_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX}),
    _USER_INFORMATION: frozenset({_MAXIMUM_LENGTH, _ROLE_SELECTION}),
}
_FIXED = {_PRESENTATION_CONTEXT: 4, _USER_INFORMATION: 0}  # bytes before the sub-items


def titles(request: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return Called and Calling AE Title, 16 bytes each, as they came."""
    return bytes(request[_CALLED]), bytes(request[_CALLING])


def supports_version_1(request: bytes | bytearray) -> bool:
    """Say whether bit 0 of the protocol version is set; the others are not to be tested."""
    return bool(request[7] & 1)


def make_decodable(request: bytearray) -> None:
    """Change what pynetdicom would stumble over: version bits beside bit 0, illegal titles, items nobody reads.

    Raises:
        ValueError: an item is longer than what holds it, or a UID has other characters than digits and periods.
    """
    if supports_version_1(request):
        request[6:8] = b"\x00\x01"
    for title in (_CALLED, _CALLING):
        text = request[title]
        if not text.strip(b" ") or b"\\" in text or min(text) < 0x20 or max(text) > 0x7E:
            request[title] = _STAND_IN
    request[_ITEMS:] = _items_read(bytes(request[_ITEMS:]), _READ)
    _LENGTH.pack_into(request, 2, len(request) - 6)


def _items_read(encoded: bytes, read: frozenset[int]) -> bytes:
    """Return the items of the types that are read, and of what they hold likewise, every UID checked."""
    kept = bytearray()
    for item_type, content in _items(encoded):
        if item_type not in read or (item_type == _ROLE_SELECTION and not _is_role_of_commitment(content)):
            continue
        if item_type in _IS_UID:
            _check_uid(content)
        elif item_type in _READ_WITHIN:
            if item_type == _PRESENTATION_CONTEXT:
                _check_context(content)
            fixed = _FIXED[item_type]
            content = content[:fixed] + _items_read(content[fixed:], _READ_WITHIN[item_type])  # noqa: PLW2901
        kept += _ITEM.pack(item_type, len(content)) + content
    return bytes(kept)


def _is_role_of_commitment(content: bytes) -> bool:
    """Say whether a role selection (PS3.7 Table D.3-9) is well formed and of the one SOP Class that has roles here."""
    (length,) = struct.unpack_from(">H", content) if len(content) >= 2 else (0,)
    uid, roles = content[2 : 2 + length], content[2 + length :]
    return uid.rstrip(b"\0 ") == _STORAGE_COMMITMENT and len(roles) == 2 and max(roles) == 1


def _check_context(content: bytes) -> None:
    """Raise ValueError for a context without its abstract or any transfer syntax, which negotiation relies on."""
    held = [item_type for item_type, _ in _items(content[_FIXED[_PRESENTATION_CONTEXT] :])]
    if held.count(_ABSTRACT_SYNTAX) != 1 or _TRANSFER_SYNTAX not in held:
        raise ValueError("a presentation context without its abstract or transfer syntax")


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
