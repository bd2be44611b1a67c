"""Looking for patient data where none may be: every encoding of every value, in files, sockets' folders and output."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydicom
from pydicom import config

KEYWORDS = ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
DATES = ("PatientBirthDate", "StudyDate")
MIN_BYTES = 6  # a shorter needle would turn up in sealed bytes by chance


def values(paths: Iterable[Path]) -> set[str]:
    """The values that identify the patients and objects in these files, names by component, dates in two forms."""
    found: set[str] = set()
    with config.disable_value_validation():  # a bad UID is a value as well
        for path in paths:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            for keyword in KEYWORDS:
                text = str(dataset.get(keyword, ""))
                parts = text.replace("=", "^").split("^") if keyword == "PatientName" else [text]
                found |= {part for part in parts if part}
            for date in (str(dataset.get(keyword, "")) for keyword in DATES):
                found |= {date, f"{date[:4]}-{date[4:6]}-{date[6:]}"} if date else set()
    return found


def needles(texts: Iterable[str]) -> dict[bytes, str]:
    """How each value would look on a disk: in four character encodings, and in hex or base64 of these."""
    found: dict[bytes, str] = {}
    for text in texts:
        raw = {}
        for encoding in ("utf-8", "latin-1", "iso2022_jp", "utf-16-le", "utf-16-be"):
            try:
                raw[encoding] = text.encode(encoding)
            except UnicodeEncodeError:
                continue
        for encoding, plain in raw.items():
            forms = {"": plain, "hex of ": plain.hex().encode(), "HEX of ": plain.hex().upper().encode()}
            for shift in range(3):  # wherever the value begins in what is encoded
                whole = base64.b64encode(bytes(shift) + plain)
                begin, end = (shift * 8 + 5) // 6, (shift + len(plain)) * 8 // 6
                forms[f"base64 (+{shift}) of "] = whole[begin:end]
                forms[f"base64url (+{shift}) of "] = whole[begin:end].translate(bytes.maketrans(b"+/", b"-_"))
            found |= {form: f"{kind}{encoding} {text!r}" for kind, form in forms.items() if len(form) >= MIN_BYTES}
    return found


def traces(data: bytes, wanted: dict[bytes, str]) -> list[str]:
    """Which needles stand in some bytes."""
    return sorted({label for needle, label in wanted.items() if needle in data})


def traces_in(folder: Path, wanted: dict[bytes, str]) -> dict[str, list[str]]:
    """Which needles stand in the files of a folder, or in their names."""
    found = {str(path): traces(path.read_bytes(), wanted) for path in _walk(folder) if path.is_file()}
    found["names"] = traces("\n".join(str(path) for path in _walk(folder)).encode(), wanted)
    return {name: labels for name, labels in found.items() if labels}


def too_open(folder: Path) -> list[str]:
    """What others could reach: folders that are not 0700, files that are not 0600, sockets that are not the owner's."""
    found = []
    for path in (folder, *_walk(folder)):
        mode = path.lstat().st_mode
        private = 0o700 if stat.S_ISDIR(mode) else 0o600
        if stat.S_IMODE(mode) != private:
            found.append(f"{path} {stat.filemode(mode)}")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    yield from folder.rglob("*")
