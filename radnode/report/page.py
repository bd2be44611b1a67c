"""The one-page summary of a result for people: what it says, independent of how it is set (`page_html`, `page_pdf`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydicom
from PIL import Image
from pydicom.dataset import Dataset

from radnode.model import Reason

WARNING = "AI result - not for primary diagnosis"
COLUMNS = ("", "Finding", "Site", "Score", "Size", "Image")

# What an exported summary has to carry so that it can be assigned to a patient and a study, and no more.
_IDENTITY = {
    "PatientName": "Patient",
    "PatientID": "Patient ID",
    "PatientBirthDate": "Born",
    "PatientSex": "Sex",
    "StudyDate": "Study date",
    "AccessionNumber": "Accession number",
    "StudyDescription": "Study",
}
# What pydicom raises on a value that is none.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, OverflowError)


@dataclass(frozen=True, slots=True)
class Page:
    """What a summary says; every text is free of control characters and not escaped.

    `identity` and `facts` are (name, value); `findings` has a row for each, in the order of `COLUMNS`; `picture` is
    the first Secondary Capture of the result, RGB, None where there is none.
    """

    headline: str
    identity: Sequence[tuple[str, str]]
    findings: Sequence[Sequence[str]]
    facts: Sequence[tuple[str, str]]
    picture: Image.Image | None

    @property
    def filled(self) -> list[int]:
        """Return which columns, from 0, say something of any finding: a film has no image number, and often no size."""
        return [column for column in range(len(COLUMNS)) if any(row[column] for row in self.findings)]


def compose_page(document: Mapping[str, Any], report: bytes, picture: bytes | None) -> Page:
    """Return the summary of a result, given its document (`results show --json`), report and picture (Part 10)."""
    header = pydicom.dcmread(io.BytesIO(report), stop_before_pixels=True)
    named = ((label, _text(header, keyword)) for keyword, label in _IDENTITY.items())
    model, source = document["model"], document["source"]
    facts = [
        ("Model", f"{model['name']} {model['version']}"),
        ("Device UID", model["device_uid"]),
        ("Image accepted", _moment(header)),
        *([("Images of the series", len(source["images"]))] if "images" in source else []),
        ("Source instance", source["SOPInstanceUID"]),
        ("Report instance", document["report"]["SOPInstanceUID"]),
        ("Result", document["id"]),
    ]
    return Page(
        headline=_headline(document),
        identity=[(label, value) for label, value in named if value],
        findings=[_row(number, finding) for number, finding in enumerate(document["findings"], 1)],
        facts=[(label, clean(str(value))) for label, value in facts],
        picture=None if picture is None else _picture(pydicom.dcmread(io.BytesIO(picture))),
    )


def clean(text: str) -> str:
    """Return text in which whatever is not printed (controls, changes of direction) is U+FFFD."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def person_name(value: str) -> str:
    """Return a person name (PS3.5 6.2.1) as people write it: its groups apart, components with spaces between them."""
    groups = (" ".join(filter(None, group.split("^"))).strip() for group in value.split("="))
    return " / ".join(filter(None, groups))


def _text(header: Dataset, keyword: str) -> str:
    """Return the value of an element for people; "" where it is missing or cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values as received: what is wrong with them is known
            value = str(header.get(keyword) or "")
    except _UNREADABLE:
        return ""
    if keyword == "PatientName":
        value = person_name(value)
    elif keyword.endswith("Date"):
        value = _date(value)
    return clean(value.strip())


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else value


def _moment(header: Dataset) -> str:
    """Return when the source was accepted, as the report says it."""
    time = _text(header, "ContentTime")
    zone = _text(header, "TimezoneOffsetFromUTC")
    return (
        f"{_date(_text(header, 'ContentDate'))} {time[:2]}:{time[2:4]} {zone and f'UTC{zone[:3]}:{zone[3:]}'}".strip()
    )


def _headline(document: Mapping[str, Any]) -> str:
    if document["reason"] is not None:
        return clean(f"{document['outcome'].replace('_', ' ').capitalize()}. {Reason(document['reason']).text}")
    score = "" if document["score"] is None else f", score {document['score']:.2f}"
    count = len(document["findings"])
    if not count:
        return f"No finding above the threshold{score}"
    return f"{count} finding{'' if count == 1 else 's'}{score}"


def _row(number: int, finding: Mapping[str, Any]) -> list[str]:
    place = [finding[key]["meaning"].lower() for key in ("laterality", "site") if finding[key]]
    size = "" if finding["diameter_mm"] is None else f"{finding['diameter_mm']:.0f} mm"
    frame = (finding["region"] or {}).get("frame")
    cells = (str(number), finding["meaning"], " ".join(place), f"{finding['score']:.2f}", size, str(frame or ""))
    return [clean(cell) for cell in cells]


def _picture(capture: Dataset) -> Image.Image:
    """Return the pixels of a Secondary Capture that this node made: RGB, 8 bits, not compressed."""
    size = capture.Columns, capture.Rows
    return Image.frombytes("RGB", size, capture.PixelData[: 3 * size[0] * size[1]])
