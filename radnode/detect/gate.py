"""The quality gate before a detector: what it does not accept is "not attempted", never silence.

It reads the attributes of an image, not its pixels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue
from pydicom.uid import UID

from radnode.errors import DetectionError
from radnode.model import Reason

if TYPE_CHECKING:
    from pydicom import Dataset

    from radnode.detect.manifest import Accepts

# PS3.16 CID 4010 DX View, in SCT and in the SRT codes used before 2018, as the View Position they stand for.
_VIEW_CODES = {"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA", "R-40888": "PA"}

# PS3.5 section 6.2: AS is 018M for 18 months
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_UNITS_A_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1}
_DATE = re.compile(r"(\d{4})((?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))")


def check(dataset: Dataset, accepts: Accepts) -> None:
    """Return when the detector may see this image.

    Raises:
        DetectionError: with the Reason for the first thing that the detector does not accept.
    """
    reason = _declined(dataset, accepts)
    if reason is not None:
        raise DetectionError(reason)


def is_image(dataset: Dataset) -> bool:
    """Say whether there is an image to report on: by its SOP class, or by having rows of pixels.

    Structured reports, presentation states, documents and waveforms are kept and not reported on; were they, a PACS
    that routes reports back would have a report on each report.
    """
    return "Image Storage" in UID(_text(dataset, "SOPClassUID")).name or "Rows" in dataset


def _declined(dataset: Dataset, accepts: Accepts) -> Reason | None:
    """Return why the image is declined, or None."""
    if _text(dataset, "SOPClassUID") not in accepts.sop_classes:
        return Reason.UNSUPPORTED_SOP_CLASS
    if _text(dataset, "Modality").upper() not in accepts.modalities:
        return Reason.UNSUPPORTED_MODALITY
    body_part = _text(dataset, "BodyPartExamined").upper()
    if not _allowed(body_part, accepts.body_parts, accepts.missing_body_part):
        return Reason.UNSUPPORTED_BODY_PART
    if not _allowed(_view(dataset), accepts.views, accepts.missing_view):
        return Reason.UNSUPPORTED_VIEW
    age = _age_years(dataset)
    if accepts.min_age_years is not None and age is not None and age < accepts.min_age_years:
        return Reason.UNSUPPORTED_AGE
    if _text(dataset, "PhotometricInterpretation").upper() not in accepts.photometric_interpretations:
        return Reason.UNSUPPORTED_PHOTOMETRIC
    if _number(dataset, "NumberOfFrames", missing=1) != 1:
        return Reason.MULTI_FRAME
    rows, columns = _number(dataset, "Rows", missing=0), _number(dataset, "Columns", missing=0)
    if not rows or not columns:
        return Reason.PIXELS_UNDECODABLE
    if rows < accepts.min_rows or columns < accepts.min_columns:
        return Reason.TOO_SMALL
    return None


def _allowed(value: str, accepted: tuple[str, ...], missing: str) -> bool:
    """Whether an attribute's value, "" when the image lacks it, is accepted; an empty list accepts any."""
    if not accepted:
        return True
    return value in accepted if value else missing == "accept"


def _view(dataset: Dataset) -> str:
    """Return the projection: View Position, else what View Code Sequence says; "" when neither does."""
    position = _text(dataset, "ViewPosition").upper()
    if position:
        return position
    codes = dataset.get("ViewCodeSequence") or ()
    values = [_text(item, "CodeValue") for item in codes]
    return "\\".join(_VIEW_CODES.get(value, value or "?") for value in values)


def _age_years(dataset: Dataset) -> int | None:
    """Return completed years by Patient's Age, else from birth to study; None when neither can be read."""
    age = _AGE.fullmatch(_text(dataset, "PatientAge"))
    if age is not None:
        return int(age[1]) // _UNITS_A_YEAR[age[2]]
    born, studied = (_DATE.fullmatch(_text(dataset, keyword)) for keyword in ("PatientBirthDate", "StudyDate"))
    if born is None or studied is None or studied[0] < born[0]:
        return None
    return int(studied[1]) - int(born[1]) - (studied[2] < born[2])


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value without its padding; "" when absent, several values with backslashes as in the file."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    return "\\".join(str(part) for part in value) if isinstance(value, MultiValue) else str(value).strip(" \0")


def _number(dataset: Dataset, keyword: str, missing: int) -> int:
    """Return an integer value, `missing` when absent or empty, and 0 when it is no integer."""
    text = _text(dataset, keyword)
    if not text:
        return missing
    return int(text) if text.isdecimal() else 0
