"""The coded concepts a report is made of, and how our own words become codes and text."""

from __future__ import annotations

import pydicom.sr.coding

from radnode.model import Code, Outcome, Reason

Concept = pydicom.sr.coding.Code

TITLE = Concept("126000", "DCM", "Imaging Measurement Report")  # PS3.16 CID 7021

CAD_SUMMARY = Concept("111017", "DCM", "CAD Processing and Findings Summary")
DETECTIONS = Concept("111064", "DCM", "Summary of Detections")
COMMENT = Concept("121106", "DCM", "Comment")
FINDING = Concept("121071", "DCM", "Finding")
FINDING_SITE = Concept("363698007", "SCT", "Finding Site")
LATERALITY = Concept("272741003", "SCT", "Laterality")
GROUP = Concept("125007", "DCM", "Measurement Group")
MEASUREMENTS = Concept("126010", "DCM", "Imaging Measurements")
REGION = Concept("111030", "DCM", "Image Region")
OUTLINE = Concept("121057", "DCM", "Perimeter outline")
SOURCE = Concept("260753009", "SCT", "Source")
SOURCE_OF_MEASUREMENT = Concept("121112", "DCM", "Source of Measurement")
TRACKING_IDENTIFIER = Concept("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Concept("112040", "DCM", "Tracking Unique Identifier")
PROCEDURE_REPORTED = Concept("121058", "DCM", "Procedure reported")
LANGUAGE = Concept("121049", "DCM", "Language of Content Item and Descendants")

# PS3.16 TID 1002 and 1004
OBSERVER_TYPE = Concept("121005", "DCM", "Observer Type")
DEVICE = Concept("121007", "DCM", "Device")
DEVICE_UID = Concept("121012", "DCM", "Device Observer UID")
DEVICE_NAME = Concept("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = Concept("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL = Concept("121015", "DCM", "Device Observer Model Name")
DEVICE_SERIAL = Concept("121016", "DCM", "Device Observer Serial Number")

# PS3.16 TID 4019
ALGORITHM_NAME = Concept("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Concept("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Concept("111002", "DCM", "Algorithm Parameters")
ALGORITHM_MANUFACTURER = Concept("122405", "DCM", "Algorithm Manufacturer")
CERTAINTY = Concept("111012", "DCM", "Certainty of Finding")  # PS3.16 CID 6048
DIAMETER = Concept("81827009", "SCT", "Diameter")
VOLUME = Concept("118565006", "SCT", "Volume")
PRESENT = Concept("52101004", "SCT", "Present")  # PS3.16 CID 240
ABSENT = Concept("272519000", "SCT", "Absent")  # PS3.16 CID 240
ENGLISH = Concept("en-US", "RFC5646", "English (United States)")

PERCENT = Concept("%", "UCUM", "Percent")
MILLIMETER = Concept("mm", "UCUM", "millimeter")
CUBIC_MILLIMETER = Concept("mm3", "UCUM", "cubic millimeter")
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

# Laterality (PS3.16 CID 244) of a mammogram by its Image Laterality (0020,0062).
SIDES = {"L": Concept("7771000", "SCT", "Left"), "R": Concept("24028007", "SCT", "Right")}

SCHEME = "99RADNODE"  # ours: a code never changes its meaning and is never used again
REASON = Concept("100", SCHEME, "Reason for No Result")
_REASON_NUMBERS = {
    Reason.UNSUPPORTED_SOP_CLASS: 101,
    Reason.UNSUPPORTED_MODALITY: 102,
    Reason.UNSUPPORTED_BODY_PART: 103,
    Reason.UNSUPPORTED_VIEW: 104,
    Reason.UNSUPPORTED_AGE: 105,
    Reason.UNSUPPORTED_PHOTOMETRIC: 106,
    Reason.MULTI_FRAME: 107,
    Reason.TOO_SMALL: 108,
    Reason.TOO_FEW_IMAGES: 109,
    Reason.TOO_MANY_IMAGES: 110,
    Reason.NOT_A_VOLUME: 111,
    Reason.IMAGE_UNREADABLE: 201,
    Reason.PIXELS_UNDECODABLE: 202,
    Reason.DECODER_CRASHED: 203,
    Reason.DECODER_TIMEOUT: 204,
    Reason.MODEL_UNAVAILABLE: 205,
    Reason.MODEL_RAISED: 206,
    Reason.MODEL_OUTPUT_INVALID: 207,
    Reason.TOO_MANY_ATTEMPTS: 208,
}
REASONS = {
    reason: Concept(str(number), SCHEME, reason.text.removesuffix(".")) for reason, number in _REASON_NUMBERS.items()
}

_IMAGING = Concept("363679005", "SCT", "Imaging procedure")

# PS3.16 CID 100, by the Modality (0008,0060) of the source. Its code for X-rays (LN 43468-8) is newer than PixelMed's
# rules, which call it an error; "Imaging procedure" is in every edition.
_PROCEDURE = {
    "CT": Concept("25045-6", "LN", "CT unspecified body region"),
    "MR": Concept("25056-3", "LN", "MRI unspecified body region"),
    "NM": Concept("49118-3", "LN", "NM unspecified body region"),
    "PT": Concept("44136-0", "LN", "PET unspecified body region"),
    "XA": Concept("77343006", "SCT", "Angiography"),
}

_SHORT, _LONG = 16, 64  # characters of SH and LO, PS3.5 section 6.2


def procedure_reported(Modality: str) -> Concept:
    """The imaging procedure of the source; for one that CID 100 has no code for, just "Imaging procedure"."""
    return _PROCEDURE.get(Modality, _IMAGING)


def coded(code: Code) -> Concept:
    """A code of a detector as a coded concept."""
    return Concept(ascii_text(code.value), ascii_text(code.scheme, _SHORT), ascii_text(code.meaning, _LONG))


def ascii_text(value: str, limit: int = _LONG) -> str:
    """Text of our own as every character set can hold it: printable ASCII, no backslash, at most `limit` characters.

    A report keeps the character set of its source (PS3.5 section 6.1.2), which need not have our letters.
    """
    kept = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in value)
    return kept[:limit].strip() or "?"
