"""No header, whatever its bytes, keeps a report from being made, and none of its bytes are changed.

Values that do not identify patient or study and that their VR forbids are left out; no other value is.
"""

from __future__ import annotations

import io

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from support import films
from support.analyses import FAILED, FINDING, report
from support.report_checks import problems

from radnode.model import Analysis
from radnode.report.header import _OPTIONAL, _REQUIRED
from radnode.report.sr import encode_report

KEYWORDS = [keyword for keyword in (*_REQUIRED, *_OPTIONAL) if keyword != "StudyInstanceUID"]
TEXT = [keyword for keyword in KEYWORDS if dictionary_VR(keyword) not in {"SQ", "US", "FD"}]
OTHER = [
    *("RequestAttributesSequence", "TimezoneOffsetFromUTC", "Modality", "InstanceNumber", "ImageLaterality"),
    *("PixelSpacing", "ImagerPixelSpacing", "EstimatedRadiographicMagnificationFactor", "FrameOfReferenceUID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence", "SOPClassUID"),
    "SeriesInstanceUID",
]
IMAGE = films.file_bytes(pydicom.dcmread(films.OPACITY))

GEOMETRY = {  # enough for a plane, unless one of them is replaced
    "Modality": b"CT",
    "PixelSpacing": b"1\\1 ",
    "FrameOfReferenceUID": b"1.2\0",
    "ImagePositionPatient": b"0\\0\\0 ",
    "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0 ",
}

item_start = st.just(b"\xfe\xff\x00\xe0")
values = st.binary(max_size=40) | st.builds(
    lambda start, length, tail: start + length.to_bytes(4, "little") + tail,
    item_start,
    st.integers(0, 40) | st.just(0xFFFFFFFF),
    st.binary(max_size=48),
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from([*KEYWORDS, *OTHER]), values, max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from([FAILED, FINDING]),
)
def test_any_bytes_in_the_header_make_a_report(
    header: dict[str, bytes], implicit: bool, little: bool, analysis: Analysis
) -> None:
    source = pydicom.dcmread(io.BytesIO(IMAGE), stop_before_pixels=True)
    del source.ImagerPixelSpacing
    for keyword, value in (GEOMETRY | header).items():
        tag = Tag(keyword)
        VR = None if implicit else dictionary_VR(tag)
        source[tag] = RawDataElement(tag, VR, len(value), value, 0, implicit, little or implicit)
    result = pydicom.dcmread(io.BytesIO(encode_report(report(source, analysis))))
    for keyword in set(TEXT) & set(header):
        if keyword not in result:
            assert keyword in _OPTIONAL
            assert dictionary_VR(keyword) in {"AS", "CS", "DA", "DS", "DT", "IS", "TM"}
            continue
        held = result.get_item(keyword)
        value = held.value if isinstance(held, RawDataElement) else None  # pydicom decodes what is empty
        assert (value or b"") in {header[keyword] + padding for padding in (b"", b" ", b"\0")}
    assert problems(result) == []
