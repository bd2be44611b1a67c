"""The coded concepts a report is made of, and how our own words become codes and text."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.sr.coding import Code as Concept  # a constant: a CodedConcept is a data set, and shared ones get changed

from radnode.model import Code, Outcome

TITLE = Concept("126000", "DCM", "Imaging Measurement Report")  # PS3.16 CID 7021

CAD_SUMMARY = Concept("111017", "DCM", "CAD Processing and Findings Summary")
DETECTIONS = Concept("111064", "DCM", "Summary of Detections")
COMMENT = Concept("121106", "DCM", "Comment")
CERTAINTY = Concept("111012", "DCM", "Certainty of Finding")  # PS3.16 CID 6048
DIAMETER = Concept("81827009", "SCT", "Diameter")
PRESENT = Concept("52101004", "SCT", "Present")  # PS3.16 CID 240
ABSENT = Concept("272519000", "SCT", "Absent")  # PS3.16 CID 240
ENGLISH = Concept("en-US", "RFC5646", "English (United States)")

PERCENT = Concept("%", "UCUM", "Percent")
MILLIMETER = Concept("mm", "UCUM", "millimeter")
PIXELS = Concept("{pixels}", "UCUM", "pixels")

# IHE RAD TF-3 AI Results: purpose of reference of the equipment that ran the model.
PROCESSING_ALGORITHM = Concept("Newcode1", "99IHE", "1630 Processing Algorithm")

# PS3.16 CID 6047
SUMMARY = {
    Outcome.FINDING: Concept("111242", "DCM", "All algorithms succeeded; with findings"),
    Outcome.NO_FINDING: Concept("111241", "DCM", "All algorithms succeeded; without findings"),
    Outcome.FAILED: Concept("111245", "DCM", "No algorithms succeeded; without findings"),
    Outcome.NOT_ATTEMPTED: Concept("111245", "DCM", "No algorithms succeeded; without findings"),
}

# PS3.16 CID 6042
STATUS = {
    Outcome.FINDING: Concept("111222", "DCM", "Succeeded"),
    Outcome.NO_FINDING: Concept("111222", "DCM", "Succeeded"),
    Outcome.FAILED: Concept("111224", "DCM", "Failed"),
    Outcome.NOT_ATTEMPTED: Concept("111225", "DCM", "Not Attempted"),
}

_X_RAY = Concept("43468-8", "LN", "XR unspecified body region")
_IMAGING = Concept("363679005", "SCT", "Imaging procedure")

# PS3.16 CID 100, by the Modality (0008,0060) of the source.
_PROCEDURE = {
    "CR": _X_RAY,
    "DX": _X_RAY,
    "RG": _X_RAY,
    "CT": Concept("25045-6", "LN", "CT unspecified body region"),
    "MR": Concept("25056-3", "LN", "MRI unspecified body region"),
    "NM": Concept("49118-3", "LN", "NM unspecified body region"),
    "PT": Concept("44136-0", "LN", "PET unspecified body region"),
    "XA": Concept("77343006", "SCT", "Angiography"),
}

_SHORT, _LONG = 16, 64  # characters of SH and LO, PS3.5 section 6.2


def procedure_reported(Modality: str) -> Concept:
    """The imaging procedure of the source; for a modality that CID 100 does not name, just "Imaging procedure"."""
    return _PROCEDURE.get(Modality, _IMAGING)


def coded(code: Code) -> CodedConcept:
    """A code of a detector as a coded concept."""
    return CodedConcept(ascii_text(code.value), ascii_text(code.scheme, _SHORT), ascii_text(code.meaning, _LONG))


def ascii_text(value: str, limit: int = _LONG) -> str:
    """Text of our own as every character set can hold it: printable ASCII, no backslash, at most `limit` characters.

    A report keeps the character set of its source (PS3.5 section 6.1.2), which need not have our letters.
    """
    kept = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in value)
    return kept[:limit].strip() or "?"
