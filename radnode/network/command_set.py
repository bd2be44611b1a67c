"""The command set of a DIMSE message: group 0000, implicit VR little endian (PS3.7 section 6.3.1, Annex E).

It is read and written here with struct, not with pydicom: a hostile UID raises no warning with its text, an
element that lies about its length is an error, and a response costs microseconds.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Mapping

NO_DATA_SET = 0x0101  # PS3.7 Table E.1-1, (0000,0800)
WITH_DATA_SET = 0x0001  # anything but 0101
MAX_COMMAND_BYTES = 65536  # the longest legal command set is under 1 KB; N-GET may list attributes

_ELEMENT = struct.Struct("<HHI")
_USHORT = struct.Struct("<H")
_UID = re.compile(rb"[0-9.]{1,64}")


class Tag(enum.IntEnum):
    """Command elements by element number (PS3.7 Table E.1-1)."""

    COMMAND_GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    PRIORITY = 0x0700
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ACTION_TYPE_ID = 0x1008


class Command(enum.IntEnum):
    """Command fields of requests (PS3.7 Table E.1-1); a response has bit 15 set."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150
    C_CANCEL = 0x0FFF


RESPONSE = 0x8000


# What a response names, and how those requests name it that ask something of an instance (PS3.7 Table E.1-1)
_NAMED = (
    (Tag.AFFECTED_SOP_CLASS_UID, Tag.REQUESTED_SOP_CLASS_UID),
    (Tag.AFFECTED_SOP_INSTANCE_UID, Tag.REQUESTED_SOP_INSTANCE_UID),
)


class MalformedCommand(Exception):
    """The bytes are not a command set; the association cannot go on."""


class CommandSet:
    """The elements of one command set, by element number; values are raw bytes."""

    def __init__(self, elements: Mapping[int, bytes]) -> None:
        self._elements = elements

    @classmethod
    def parse(cls, encoded: bytes) -> CommandSet:
        """Read all elements.

        Raises:
            MalformedCommand: a length past the end, an element outside group 0000 or out of order.
        """
        elements: dict[int, bytes] = {}
        offset, last = 0, -1
        while offset < len(encoded):
            if len(encoded) - offset < _ELEMENT.size:
                raise MalformedCommand("the command set ends within an element header")
            group, element, length = _ELEMENT.unpack_from(encoded, offset)
            offset += _ELEMENT.size
            if group != 0 or element <= last:
                raise MalformedCommand("elements are not those of group 0000 in ascending order")
            if length > len(encoded) - offset:
                raise MalformedCommand("an element is longer than the command set")
            elements[element] = encoded[offset : offset + length]
            offset, last = offset + length, element
        return cls(elements)

    def ushort(self, tag: Tag) -> int:
        """Return a US element.

        Raises:
            MalformedCommand: it is absent or not 2 bytes long.
        """
        value = self._elements.get(tag, b"")
        if len(value) != _USHORT.size:
            raise MalformedCommand(f"{tag.name} is absent or not a US")
        return int(_USHORT.unpack(value)[0])

    def has_ushort(self, tag: Tag) -> bool:
        """Say whether a US element is there."""
        return len(self._elements.get(tag, b"")) == _USHORT.size

    def uid(self, tag: Tag) -> str | None:
        """Return a UI element without its padding; None when absent or not digits and periods (PS3.5 9.1)."""
        value = self._elements.get(tag, b"").removesuffix(b"\0").rstrip(b" ")
        return value.decode("ascii") if _UID.fullmatch(value) else None

    @property
    def is_answered(self) -> bool:
        """Say whether the request gets a response; C-CANCEL gets none (PS3.7 section 9.3.2.3)."""
        return self.ushort(Tag.COMMAND_FIELD) != Command.C_CANCEL

    @property
    def has_data_set(self) -> bool:
        """Say whether a data set follows."""
        return self.ushort(Tag.COMMAND_DATA_SET_TYPE) != NO_DATA_SET


def encode(values: Mapping[Tag, int | str]) -> bytes:
    """Return an encoded command set with its group length; int values are US, str values UI."""
    body = bytearray()
    for tag in sorted(values):
        value = values[tag]
        raw = _USHORT.pack(value) if isinstance(value, int) else value.encode("ascii")
        raw += b"\0" * (len(raw) % 2)
        body += _ELEMENT.pack(0, tag, len(raw)) + raw
    return _ELEMENT.pack(0, Tag.COMMAND_GROUP_LENGTH, 4) + struct.pack("<I", len(body)) + body


def response(request: CommandSet, status: int) -> bytes:
    """Return the encoded response to `request`: same message, its UIDs where readable, and no data set."""
    values: dict[Tag, int | str] = {
        Tag.COMMAND_FIELD: request.ushort(Tag.COMMAND_FIELD) | RESPONSE,
        Tag.MESSAGE_ID_BEING_RESPONDED_TO: request.ushort(Tag.MESSAGE_ID),
        Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        Tag.STATUS: status,
    }
    for affected, requested in _NAMED:
        uid = request.uid(affected) or request.uid(requested)
        if uid is not None:
            values[affected] = uid
    return encode(values)
