"""The data sets of Storage Commitment (PS3.4 Tables J.3-1 and J.3-2): read with bounds, and written.

A request names instances that the SCU would like to delete, a report says of each whether it is kept. Read is what
names instances and says why one is not kept; every other element is stepped over. The encoding is one of the two that
are negotiated for this SOP Class, Implicit or Explicit VR Little Endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from radnode.errors import InputError, MalformedDataSet, ObjectTooLarge
from radnode.identify import check_uid
from radnode.model import CommitmentReport, CommitmentRequest, FailedReference, Reference

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # the Push Model SOP Class, PS3.4 section J.3.5
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known instance
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
MAX_BYTES = 4 << 20  # of one data set; a reference takes some 120
MAX_REFERENCES = 20_000
MAX_DEPTH = 8  # the standard nests one level
_MAX_ELEMENTS = 5 * MAX_REFERENCES  # items too; a reference is an item of two or three elements

_TRANSACTION_UID = 0x00081195
_REFERENCED_SEQUENCE, _FAILED_SEQUENCE = 0x00081199, 0x00081198
_CLASS_UID, _INSTANCE_UID, _FAILURE_REASON = 0x00081150, 0x00081155, 0x00081197
_VALUES = frozenset({_TRANSACTION_UID, _CLASS_UID, _INSTANCE_UID, _FAILURE_REASON})
_SEQUENCES = frozenset({_REFERENCED_SEQUENCE, _FAILED_SEQUENCE})

_MAX_VALUE = 66  # bytes; a UID has 64 (PS3.5 section 9.1), and some pad more than they must
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_FORM = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_FORM = frozenset(
    {
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"),
        *(b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    }
)
_TAG = struct.Struct("<HH")
_LONG = struct.Struct("<I")
_SHORT = struct.Struct("<H")

_Elements = dict[int, "bytes | list[_Elements]"]


def read_request(data_set: bytes, transfer_syntax_uid: str) -> CommitmentRequest:
    """Return what an N-ACTION asks to be committed (PS3.4 Table J.3-1).

    Raises:
        MalformedDataSet: the elements cannot be told apart, or Transaction UID or references are missing.
        InvalidUID: a UID is not one.
        ObjectTooLarge: more than `MAX_BYTES` bytes or `MAX_REFERENCES` references.
    """
    elements = _Reader(data_set, implicit=transfer_syntax_uid == IMPLICIT).read()
    references = tuple(_reference(item) for item in _items(elements, _REFERENCED_SEQUENCE))
    if not references:
        raise MalformedDataSet("The storage commitment request names no instance.")
    if len(references) > MAX_REFERENCES:
        raise too_long()
    return CommitmentRequest(_uid(elements, _TRANSACTION_UID), references)


def read_report(data_set: bytes, transfer_syntax_uid: str) -> CommitmentReport:
    """Return what an N-EVENT-REPORT says is kept and what not (PS3.4 Table J.3-2); errors as of `read_request`."""
    elements = _Reader(data_set, implicit=transfer_syntax_uid == IMPLICIT).read()
    return CommitmentReport(
        _uid(elements, _TRANSACTION_UID),
        tuple(_reference(item) for item in _items(elements, _REFERENCED_SEQUENCE)),
        tuple(FailedReference(_reference(item), _reason(item)) for item in _items(elements, _FAILED_SEQUENCE)),
    )


def write_request(request: CommitmentRequest, transfer_syntax_uid: str) -> bytes:
    """Encode a request."""
    writer = _Writer(implicit=transfer_syntax_uid == IMPLICIT)
    return writer.uid(_TRANSACTION_UID, request.TransactionUID) + writer.sequence(
        _REFERENCED_SEQUENCE, (writer.reference(item) for item in request.references)
    )


def write_report(report: CommitmentReport, transfer_syntax_uid: str) -> bytes:
    """Encode a report; a sequence that would be empty is left out."""
    writer = _Writer(implicit=transfer_syntax_uid == IMPLICIT)
    encoded = writer.uid(_TRANSACTION_UID, report.TransactionUID)
    if report.failed:  # (0008,1198) stands before (0008,1199)
        failed = (
            writer.reference(item.reference) + writer.element(_FAILURE_REASON, b"US", _SHORT.pack(item.reason))
            for item in report.failed
        )
        encoded += writer.sequence(_FAILED_SEQUENCE, failed)
    if report.committed:
        encoded += writer.sequence(_REFERENCED_SEQUENCE, (writer.reference(item) for item in report.committed))
    return encoded


def _reference(item: _Elements) -> Reference:
    return Reference(_uid(item, _CLASS_UID), _uid(item, _INSTANCE_UID))


def _uid(elements: _Elements, tag: int) -> str:
    value = elements.get(tag)
    if not isinstance(value, bytes) or not value.strip(b" \0"):
        raise MalformedDataSet(f"The storage commitment data set has no UID in {_name(tag)}.")
    return check_uid(value.rstrip(b" \0").decode("latin-1"))


def _reason(item: _Elements) -> int:
    value = item.get(_FAILURE_REASON)
    if not isinstance(value, bytes) or len(value) != _SHORT.size:
        raise MalformedDataSet("A failed reference has no Failure Reason.")
    return int(_SHORT.unpack(value)[0])


def _items(elements: _Elements, tag: int) -> list[_Elements]:
    value = elements.get(tag, [])
    return value if isinstance(value, list) else []


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Reader:
    """One pass over a whole data set, each element looked at once, however its lengths are given."""

    def __init__(self, data: bytes, *, implicit: bool) -> None:
        if len(data) > MAX_BYTES:
            raise too_long()
        self._data = data
        self._implicit = implicit
        self._count = 0

    def read(self) -> _Elements:
        """Return the wanted elements."""
        return self._data_set(0, len(self._data), 0, implicit=self._implicit, delimited=False)[0]

    def _data_set(
        self, position: int, end: int, depth: int, *, implicit: bool, delimited: bool
    ) -> tuple[_Elements, int]:
        """Read up to `end`, or to the delimiter of an item before it; return the position behind."""
        values: _Elements = {}
        while delimited or position < end:
            tag = self._tag(position, end)
            if tag == _ITEM_END and delimited:
                return values, position + 8
            vr, value, length = self._header(tag, position, end, implicit=implicit)
            stop = end if length == _UNDEFINED else value + length
            if stop > end:
                raise MalformedDataSet("An element is longer than what holds it.")
            if tag in values:
                raise MalformedDataSet("An element stands twice in the storage commitment data set.")
            if length == _UNDEFINED or (tag in _SEQUENCES and vr in (b"SQ", b"")):
                items, position = self._sequence(
                    value, stop, depth + 1, implicit=implicit or vr == b"UN", delimited=length == _UNDEFINED
                )
                if tag in _SEQUENCES:
                    values[tag] = items
                continue
            if tag in _VALUES:
                if length > _MAX_VALUE:
                    raise MalformedDataSet(f"{_name(tag)} is longer than any value it may have.")
                values[tag] = self._data[value:stop]
            position = stop
        return values, position

    def _sequence(
        self, position: int, end: int, depth: int, *, implicit: bool, delimited: bool
    ) -> tuple[list[_Elements], int]:
        """Read the items of a sequence up to `end`, or to its delimiter before it; return the position behind."""
        if depth > MAX_DEPTH:
            raise MalformedDataSet(f"Sequences are nested deeper than {MAX_DEPTH}.")
        items: list[_Elements] = []
        while delimited or position < end:
            tag = self._tag(position, end)
            (length,) = _LONG.unpack_from(self._data, position + 4)
            position += 8
            if tag == _SEQUENCE_END and delimited:
                return items, position
            if tag != _ITEM:
                raise MalformedDataSet("A sequence holds something other than items.")
            stop = end if length == _UNDEFINED else position + length
            if stop > end:
                raise MalformedDataSet("An item is longer than the sequence that holds it.")
            item, position = self._data_set(position, stop, depth, implicit=implicit, delimited=length == _UNDEFINED)
            items.append(item)
        return items, position

    def _tag(self, position: int, end: int) -> int:
        """Return the tag of the element or item at `position`, of whose header 8 bytes are there."""
        if end - position < 8:
            raise MalformedDataSet("The storage commitment data set ends within an element.")
        self._count += 1
        if self._count > _MAX_ELEMENTS:
            raise too_long()
        group, element = _TAG.unpack_from(self._data, position)
        return int(group << 16 | element)

    def _header(self, tag: int, position: int, end: int, *, implicit: bool) -> tuple[bytes, int, int]:
        """Return the VR (none where it is implicit), where the value begins, and its length."""
        vr = b"" if implicit else self._data[position + 4 : position + 6]
        if tag >> 16 == 0xFFFE or not (implicit or vr in _LONG_FORM or vr in _SHORT_FORM):
            raise MalformedDataSet("The bytes are not those of a data set in the transfer syntax agreed on.")
        if vr in _SHORT_FORM:
            return vr, position + 8, _SHORT.unpack_from(self._data, position + 6)[0]
        value = position + (8 if implicit else 12)
        if value > end:
            raise MalformedDataSet("The storage commitment data set ends within an element.")
        (length,) = _LONG.unpack_from(self._data, value - 4)
        if length == _UNDEFINED and vr not in (b"", b"SQ", b"UN"):  # PS3.5 section 7.1.2
            raise MalformedDataSet("An element of undefined length is not a sequence.")
        return vr, value, length


class _Writer:
    """Encodes elements; every length is given."""

    def __init__(self, *, implicit: bool) -> None:
        self._implicit = implicit

    def element(self, tag: int, vr: bytes, value: bytes) -> bytes:
        """Encode one element of even length."""
        start = _TAG.pack(tag >> 16, tag & 0xFFFF)
        if self._implicit:
            return start + _LONG.pack(len(value)) + value
        length = b"\0\0" + _LONG.pack(len(value)) if vr in _LONG_FORM else _SHORT.pack(len(value))
        return start + vr + length + value

    def uid(self, tag: int, uid: str) -> bytes:
        """Encode a UI element."""
        value = uid.encode("ascii")
        return self.element(tag, b"UI", value + b"\0" * (len(value) % 2))

    def reference(self, reference: Reference) -> bytes:
        """Encode what an item says of one instance."""
        return self.uid(_CLASS_UID, reference.SOPClassUID) + self.uid(_INSTANCE_UID, reference.SOPInstanceUID)

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        """Encode a sequence of items."""
        head = _TAG.pack(_ITEM >> 16, _ITEM & 0xFFFF)
        return self.element(tag, b"SQ", b"".join(head + _LONG.pack(len(item)) + item for item in items))


def too_long() -> InputError:
    """Return the error for a data set over one of the limits."""
    return ObjectTooLarge(f"A storage commitment names at most {MAX_REFERENCES} instances in {MAX_BYTES >> 20} MiB.")
