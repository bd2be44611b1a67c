"""A bounded walk over the elements of a data set (PS3.5 section 7) that arrives in pieces.

Nothing is allocated in proportion to what a length claims: a length is checked against the sequence or item that holds
the element, at the end against what came; nesting against `MAX_DEPTH`, the number of elements against `MAX_ELEMENTS`.
Values are kept only of the wanted and the noted elements of the top level. Between two pieces the walk holds at most
one header and one such value, so that neither memory nor time depends on how the bytes were cut.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import product
from typing import NamedTuple

from pydicom.datadict import DicomDictionary, RepeatersDictionary  # type: ignore[attr-defined]  # as in contexts.py

from radnode.errors import MalformedDataSet, ObjectTooLarge

MAX_DEPTH = 32
MAX_ELEMENTS = 500_000
MAX_VALUE = 1024  # bytes kept of a value; the longest VR of an identifier (LO, multi-byte) stays far below
UNDEFINED = 0xFFFFFFFF

_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD  # elements of group FFFE
_LONG_VR = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT_VR = (
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"),
    *(b"ST", b"TM", b"UI", b"UL", b"US"),
)
_IS_LONG = dict.fromkeys(_LONG_VR, True) | dict.fromkeys(_SHORT_VR, False)  # the two header forms of PS3.5 7.1.2
_HEADER = 8  # bytes of the shorter form
_REACH = _HEADER + 4 + MAX_VALUE  # bytes that any one step of the walk needs to see
_NOWHERE = 1 << 62  # the end of what a delimiter ends, or nothing


def _sequences() -> Iterator[int]:
    """Yield the tags of the standard's sequences (PS3.6), those of repeating groups (50xx) one by one.

    pydicom's own look-up takes 7 microseconds for a tag that it does not know, and there may be half a million of them.
    """
    yield from (tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
    for mask in (mask for mask, entry in RepeatersDictionary.items() if entry[0] == "SQ"):
        for digits in product("0123456789abcdef", repeat=mask.count("x")):
            tag = int(mask.replace("x", "{}").format(*digits), 16)
            if not tag >> 16 & 1:  # odd groups are private
                yield tag


_SEQUENCES = frozenset(_sequences())


class _Level(NamedTuple):
    """One open level of nesting.

    `kind` is "data", "sequence" or "fragments", `item` whether data is that of an item, `end` where the level ends
    (`_NOWHERE`: at a delimiter), `limit` where the innermost level around it ends that says so.
    """

    kind: str
    item: bool
    end: int
    limit: int
    implicit: bool


class Walk:
    """One pass over the elements of one data set, `endian` as in `struct`.

    `wanted` and `noted` map tags to keywords. A wanted element identifies: it must stand there once at most, and not be
    longer than `MAX_VALUE`. Of a noted one the first is kept, and of that the first `MAX_VALUE` bytes.
    """

    def __init__(
        self, wanted: Mapping[int, str], endian: str, *, implicit: bool, noted: Mapping[int, str] | None = None
    ) -> None:
        self.values: dict[str, bytes] = {}
        self._wanted = wanted
        self._kept = wanted if not noted else {**noted, **wanted}
        self._groups = frozenset(tag >> 16 for tag in self._kept)
        self._explicit = struct.Struct(endian + "HH2sH").unpack_from  # group, element, VR, length
        self._implicit = struct.Struct(endian + "HHI").unpack_from  # group, element, length
        self._long = struct.Struct(endian + "I").unpack_from
        self._tag = struct.Struct(endian + "HH").unpack_from
        self._level = _Level("data", False, _NOWHERE, _NOWHERE, implicit)
        self._outer: list[_Level] = []
        self._count = 0  # elements so far
        self._position = 0  # of the next element, in the data set
        self._fed = 0  # bytes so far
        self._rest = b""  # the last of them: the beginning of an element

    def feed(self, piece: memoryview) -> None:
        """Walk over the bytes that follow those fed before.

        Raises:
            MalformedDataSet: no data set begins like this.
            ObjectTooLarge: more than `MAX_ELEMENTS` elements.
        """
        if self._rest:
            joined = self._rest + bytes(piece[:_REACH])
            base = self._fed - len(self._rest)
            self._walk(joined, base)
            if len(piece) <= _REACH:
                self._fed += len(piece)
                self._rest = joined[self._position - base :]
                return
        self._walk(piece, self._fed)
        start = self._position - self._fed
        self._fed += len(piece)
        self._rest = bytes(piece[start:]) if start < len(piece) else b""

    def finish(self) -> None:
        """Say that everything was fed.

        Raises:
            MalformedDataSet: the data set is cut off.
        """
        if self._position != self._fed or self._outer:
            raise MalformedDataSet("The data set ends within an element.")

    def _walk(self, data: bytes | memoryview, base: int) -> None:  # noqa: PLR0912, PLR0915 (one hot loop, see below)
        """Walk over every element that `data`, whose first byte is number `base` of the data set, shows enough of.

        One loop for all forms, everything it asks for in local names: it runs once for each of up to half a million
        elements while the peer waits for its answer.
        """
        explicit_header, implicit_header, long, is_long = self._explicit, self._implicit, self._long, _IS_LONG
        groups, size, position = self._groups, len(data), self._position - base
        kind, _, end, limit, implicit = self._level
        end, limit = end - base, limit - base
        for count in range(self._count, MAX_ELEMENTS + 1):  # noqa: B007 (kept behind the loop)
            while position >= end:
                if position > end:
                    raise MalformedDataSet("An element is longer than the sequence item that holds it.")
                kind, _, end, limit, implicit = self._close()
                end, limit = end - base, limit - base
            value = position + _HEADER
            if value > size:
                break
            vr = b""
            if implicit:
                group, element, length = implicit_header(data, position)
            else:
                group, element, vr, length = explicit_header(data, position)
            if group == 0xFFFE:
                (length,) = long(data, position + 4)
                position = self._delimiter(element, length, base + value) - base
                kind, _, end, limit, implicit = self._level
                end, limit = end - base, limit - base
                continue
            if kind != "data":
                raise MalformedDataSet("A sequence holds something other than items.")
            if not implicit:
                form = is_long.get(vr)
                if form:
                    value += 4
                    if value > size:
                        break
                    (length,) = long(data, value - 4)
                elif form is None:
                    raise MalformedDataSet("An element has no value representation of the standard.")
            stop = value + length
            if length == UNDEFINED:
                self._open_undefined(group << 16 | element, vr)
            elif stop > limit:
                raise MalformedDataSet("An element is longer than the data that holds it.")
            elif vr == b"SQ":
                self._open("sequence", base + stop, implicit=False)
            elif (  # implicit VR names no sequences: the dictionary does, and the first item must be there
                implicit
                and length >= _HEADER
                and (value + 4 > size or self._tag(data, value) == (0xFFFE, _ITEM))
                and group << 16 | element in _SEQUENCES
            ):
                if value + 4 > size:
                    break
                self._open("sequence", base + stop, implicit=True)
            else:
                if group in groups and not self._outer and (keyword := self._kept.get(group << 16 | element)):
                    kept = value + self._check(group << 16 | element, keyword, length)
                    if kept > size:
                        break
                    self.values.setdefault(keyword, bytes(data[value:kept]))
                position = stop
                continue
            position = value
            kind, _, end, limit, implicit = self._level
            end, limit = end - base, limit - base
        else:
            raise ObjectTooLarge(f"The data set has more than {MAX_ELEMENTS} elements.")
        self._count, self._position = count, position + base

    def _check(self, tag: int, keyword: str, length: int) -> int:
        """Return how many bytes of a value of this length are kept."""
        if tag not in self._wanted:
            return min(length, MAX_VALUE)
        if keyword in self.values:
            raise MalformedDataSet("An identifying element stands twice in the data set.")
        if length > MAX_VALUE:
            raise MalformedDataSet("An identifying element is longer than any value it may have.")
        return length

    def _open_undefined(self, tag: int, vr: bytes) -> None:
        """Open what an element of undefined length holds."""
        if tag == _PIXEL_DATA:
            self._open("fragments", _NOWHERE, implicit=self._level.implicit)
        elif vr in (b"SQ", b"UN", b""):
            # PS3.5 section 6.2.2 Note 2: UN of undefined length is an implicit VR sequence
            self._open("sequence", _NOWHERE, implicit=self._level.implicit or vr == b"UN")
        else:
            raise MalformedDataSet("An element of undefined length is not a sequence.")

    def _delimiter(self, element: int, length: int, value: int) -> int:
        """Follow an item or a delimiter whose value begins at `value`; return where the walk goes on."""
        level = self._level
        if element == _ITEM and level.kind != "data":
            end = _NOWHERE if length == UNDEFINED else value + length
            if level.kind == "sequence":
                if end != _NOWHERE and end > level.limit:
                    raise MalformedDataSet("An element is longer than the data that holds it.")
                self._open("data", end, implicit=level.implicit)
                return value
            if value + length <= level.limit:
                return value + length
            raise MalformedDataSet("An element is longer than the data that holds it.")
        ends = level.item if element == _ITEM_END else element == _SEQUENCE_END and level.kind != "data"
        if not ends or level.end != _NOWHERE:
            raise MalformedDataSet("An item or a delimiter stands where none may be.")
        self._close()
        return value

    def _open(self, kind: str, end: int, *, implicit: bool) -> None:
        if len(self._outer) >= 2 * MAX_DEPTH:  # a nested data set opens two levels: sequence and item
            raise MalformedDataSet(f"Sequences are nested deeper than {MAX_DEPTH}.")
        self._outer.append(self._level)
        self._level = _Level(kind, kind == "data", end, min(end, self._level.limit), implicit)

    def _close(self) -> _Level:
        self._level = self._outer.pop()
        return self._level
