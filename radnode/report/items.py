"""Content items of a structured report (PS3.3 C.17.3), encoded as they are made: Explicit VR Little Endian.

A report of ten findings has a thousand elements. As data sets, copied and searched, they take longer than the detector;
as bytes they take two milliseconds. An item is the encoded Item (PS3.5 section 7.5) that goes into a Content Sequence,
and its elements stand here in the order of their tags. Text is ASCII (`codes.ascii_text`). That highdicom makes the
same of the same findings is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from radnode.report.codes import Concept

CONTAINS = "CONTAINS"
HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
SELECTED_FROM = "SELECTED FROM"

CONTENT_SEQUENCE = 0x0040A730
_CODE_VALUE, _SCHEME, _MEANING = 0x00080100, 0x00080102, 0x00080104
_LONG_CODE_VALUE = 0x00080119
_MAPPING_RESOURCE, _TEMPLATE = 0x00080105, 0x0040DB00
_SOP_CLASS, _SOP_INSTANCE, _FRAME = 0x00081150, 0x00081155, 0x00081160
_REFERENCED_SERIES, _REFERENCED_SOP = 0x00081115, 0x00081199
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_UNITS, _MEASURED, _FLOAT, _NUMERIC = 0x004008EA, 0x0040A300, 0x0040A161, 0x0040A30A
_RELATIONSHIP, _VALUE_TYPE, _CONCEPT_NAME, _CONTINUITY = 0x0040A010, 0x0040A040, 0x0040A043, 0x0040A050
_UID, _TEXT, _CONCEPT_CODE, _CONTENT_TEMPLATE = 0x0040A124, 0x0040A160, 0x0040A168, 0x0040A504
_GRAPHIC_DATA, _GRAPHIC_TYPE, _FRAME_OF_REFERENCE = 0x00700022, 0x00700023, 0x30060024

_LONG_VR = frozenset({"SQ", "UC", "UT"})
_SHORT = 16  # characters of a Code Value (SH); a longer one is a Long Code Value (PS3.3 section 8.1)


def element(tag: int, VR: str, value: bytes) -> bytes:
    """An element (PS3.5 section 7.1.2), padded to an even length."""
    if len(value) % 2:
        value += b"\0" if VR == "UI" else b" "
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, VR.encode())
    length = struct.pack("<HL", 0, len(value)) if VR in _LONG_VR else struct.pack("<H", len(value))
    return head + length + value


def item(*elements: bytes) -> bytes:
    """An Item of a sequence (PS3.5 Table 7.5-1) with these elements, which are in the order of their tags."""
    content = b"".join(elements)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def raw(tag: int, items: Iterable[bytes]) -> RawDataElement:
    """A sequence as the element of a data set."""
    value = b"".join(items)
    return RawDataElement(Tag(tag), "SQ", len(value), value, 0, False, True)


def code_sequence(tag: int, concept: Concept) -> RawDataElement:
    """A sequence of one code as the element of a data set."""
    return raw(tag, [_code_item(concept)])


def study_references(StudyInstanceUID: str, series: Mapping[str, Iterable[bytes]]) -> bytes:
    """An item of the Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1): `reference`s by series of a study."""
    found = [
        item(element(_REFERENCED_SOP, "SQ", b"".join(instances)), element(_SERIES, "UI", _unique(uid)))
        for uid, instances in series.items()
    ]
    return item(element(_REFERENCED_SERIES, "SQ", b"".join(found)), element(_STUDY, "UI", _unique(StudyInstanceUID)))


def reference(SOPClassUID: str, SOPInstanceUID: str, frame: int | None = None) -> bytes:
    """An item that names an instance, or one frame of it from 1 (PS3.3 Table 10-3 and 10-11)."""
    number = b"" if frame is None else element(_FRAME, "IS", str(frame).encode())
    return item(
        element(_SOP_CLASS, "UI", _unique(SOPClassUID)), element(_SOP_INSTANCE, "UI", _unique(SOPInstanceUID)), number
    )


def code(relationship: str, name: Concept, value: Concept, *children: bytes) -> bytes:
    """CODE."""
    return _content(relationship, "CODE", name, _coded(_CONCEPT_CODE, value), children)


def text(relationship: str, name: Concept, value: str) -> bytes:
    """TEXT; at least one character."""
    return _content(relationship, "TEXT", name, element(_TEXT, "UT", _ascii(value)), ())


def uid(relationship: str, name: Concept, value: str) -> bytes:
    """UIDREF."""
    return _content(relationship, "UIDREF", name, element(_UID, "UI", _unique(value)), ())


def number(relationship: str, name: Concept, value: float, unit: Concept) -> bytes:
    """NUM; the decimal string has 16 characters at most, the floating point value is exact (PS3.3 C.18.1)."""
    measured = item(
        _coded(_UNITS, unit),
        element(_FLOAT, "FD", struct.pack("<d", value)),
        element(_NUMERIC, "DS", decimal(value).encode()),
    )
    return _content(relationship, "NUM", name, element(_MEASURED, "SQ", measured), ())


def image(relationship: str, name: Concept, referenced: bytes) -> bytes:
    """IMAGE; `referenced` is a `reference`."""
    return item(element(_REFERENCED_SOP, "SQ", referenced), _head(relationship, "IMAGE", name))


def scoord(relationship: str, name: Concept, points: Iterable[tuple[float, float]], *children: bytes) -> bytes:
    """SCOORD polyline through (column, row) in pixels of the image that it is selected from (PS3.3 C.18.6)."""
    return _content(relationship, "SCOORD", name, b"", children, _graphic(points, "POLYLINE"))


def scoord3d(
    relationship: str, name: Concept, points: Iterable[tuple[float, float, float]], FrameOfReferenceUID: str
) -> bytes:
    """SCOORD3D polygon through (x, y, z) in mm of a frame of reference, first point last (PS3.3 C.18.9)."""
    tail = _graphic(points, "POLYGON") + element(_FRAME_OF_REFERENCE, "UI", _unique(FrameOfReferenceUID))
    return _content(relationship, "SCOORD3D", name, b"", (), tail)


def container(name: Concept, template: str, children: Iterable[bytes]) -> bytes:
    """CONTAINER that another contains; `template` is the number of its template, or "" where it has none of its own."""
    which = element(_CONTENT_TEMPLATE, "SQ", _template_item(template)) if template else b""
    return _content(CONTAINS, "CONTAINER", name, element(_CONTINUITY, "CS", b"CONTINUOUS") + which, children)


def root(title: Concept, template: str, children: Iterable[bytes]) -> list[RawDataElement]:
    """The elements of the root content item, for the data set of the report."""
    return [
        RawDataElement(Tag(_VALUE_TYPE), "CS", 10, b"CONTAINER ", 0, False, True),
        code_sequence(_CONCEPT_NAME, title),
        RawDataElement(Tag(_CONTINUITY), "CS", 10, b"CONTINUOUS", 0, False, True),
        raw(_CONTENT_TEMPLATE, [_template_item(template)]),
        raw(CONTENT_SEQUENCE, children),
    ]


def decimal(value: float) -> str:
    """The shortest decimal string (PS3.5 DS) that means a number, or the closest one of 16 characters."""
    text = repr(float(value)).removesuffix(".0")
    for digits in range(16, 0, -1):
        if len(text) <= _SHORT:
            break
        text = f"{value:.{digits}g}"
    return text


def _content(
    relationship: str, value_type: str, name: Concept, value: bytes, children: Iterable[bytes], tail: bytes = b""
) -> bytes:
    below = b"".join(children)
    return item(
        _head(relationship, value_type, name), value, element(CONTENT_SEQUENCE, "SQ", below) if below else b"", tail
    )


def _head(relationship: str, value_type: str, name: Concept) -> bytes:
    kind = element(_RELATIONSHIP, "CS", relationship.encode()) + element(_VALUE_TYPE, "CS", value_type.encode())
    return kind + _coded(_CONCEPT_NAME, name)


def _coded(tag: int, concept: Concept) -> bytes:
    return element(tag, "SQ", _code_item(concept))


def _code_item(concept: Concept) -> bytes:
    return _code_sequence_item(
        concept.value, concept.scheme_designator, concept.meaning
    )  # codes of one value are equal


@lru_cache(maxsize=512)
def _code_sequence_item(value: str, scheme: str, meaning: str) -> bytes:
    """An item of the Code Sequence Macro (PS3.3 Table 8.8-1)."""
    tag, VR = (_CODE_VALUE, "SH") if len(value) <= _SHORT else (_LONG_CODE_VALUE, "UC")
    described = element(_SCHEME, "SH", _ascii(scheme)) + element(_MEANING, "LO", _ascii(meaning))
    valued = element(tag, VR, _ascii(value))
    return item(valued, described) if tag < _SCHEME else item(described, valued)


def _template_item(identifier: str) -> bytes:
    return item(element(_MAPPING_RESOURCE, "CS", b"DCMR"), element(_TEMPLATE, "CS", identifier.encode()))


def _graphic(points: Iterable[tuple[float, ...]], kind: str) -> bytes:
    flat = [coordinate for point in points for coordinate in point]
    data = element(_GRAPHIC_DATA, "FL", struct.pack(f"<{len(flat)}f", *flat))
    return data + element(_GRAPHIC_TYPE, "CS", kind.encode())


def _ascii(value: str) -> bytes:
    return value.encode("ascii", "replace")


def _unique(value: str) -> bytes:
    """A UID; of what a sloppy source has in its place, no more than a UID's 64 characters (PS3.5 section 9.1)."""
    return _ascii(value[:64])
