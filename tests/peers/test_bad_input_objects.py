"""Rows 13 to 15 and 20 to 22 of "Bad input and what it gets" (security.md): commands and data sets."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support import films, rooms
from support.bad_input import Target, raw_data_set

from radnode.network.contexts import VERIFICATION
from radnode.part10 import read_file_meta

MR = "1.2.840.10008.5.1.4.1.1.4"


def instance(**elements: object) -> Dataset:
    """A small CT object under a SOP Instance UID of its own."""
    return rooms.small(**{"SOPInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), **elements})


# --- row 13


@pytest.mark.parametrize("sop_class", [MR, VERIFICATION, "1.2.3"])
def test_row_13_sop_class_other_than_that_of_the_context_is_0122(target: Target, sop_class: str) -> None:
    dataset = instance()
    with target.attacked("0122"):
        assert target.store(dataset, AFFECTED_SOP_CLASS_UID=sop_class) == 0x0122
    assert target.kept(dataset.SOPInstanceUID) is None


@pytest.mark.parametrize(
    "differs", [{"SOPClassUID": MR}, {"SOPInstanceUID": "1.2.3.13.99"}], ids=lambda d: next(iter(d))
)
def test_row_13_data_set_that_differs_from_its_command_is_a900(target: Target, differs: dict[str, str]) -> None:
    uid = generate_uid()
    with target.attacked("A900"):
        assert target.store(instance(**differs), AFFECTED_SOP_INSTANCE_UID=uid) == 0xA900
    assert target.kept(uid) is target.kept("1.2.3.13.99") is None


# --- row 14

BAD_UIDS = {
    "path": "../../../row14",
    "absolute path": "/row14",
    "NUL": "1.2\x00.3/row14",
    "letters": "1.2.row14",
    "over 64 characters": "1." + "2" * 63,
    "far over 64 characters": "1" * 1000,
    "format string": "%s%n1.2",
    "line break": "1.2\n.3",
    "only dots": "...",
    "two dots": "1..2",
}


@pytest.mark.parametrize("uid", BAD_UIDS.values(), ids=BAD_UIDS)
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_row_14_uid_that_is_none_is_0117_and_no_path_is_built_from_it(target: Target, keyword: str, uid: str) -> None:
    own = uid if keyword == "SOPInstanceUID" else generate_uid()
    with target.attacked("0117"):
        assert target.store_bytes(raw_data_set(own, **{keyword: uid.encode()}), own) == 0x0117
    around = [*target.node.folder.parent.rglob("*row14*"), *Path("/").glob("*row14*")]
    assert around == []


# --- row 15


def nested(depth: int, *, undefined: bool) -> bytes:
    """Sequences within sequences, explicit VR little endian."""
    if undefined:
        begin = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        return begin * depth + (b"\xfe\xff\x0d\xe0\x00\x00\x00\x00" + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00") * depth
    content = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content
        content = b"\x08\x00\x15\x11SQ\x00\x00" + struct.pack("<I", len(item)) + item
    return content


def broken(dataset: Dataset) -> dict[str, bytes]:
    whole = rooms.encoded(dataset)
    patient = whole.index(b"\x10\x00\x10\x00PN")
    return {
        "junk": bytes(range(256)) * 40,
        "text": b"This is no data set. " * 100,
        "zeros": bytes(1000),
        "one byte": b"\x08",
        "truncated in an element": whole[:-5],
        "truncated in a header": whole[: patient + 5],
        "element longer than the data": whole[:patient] + b"\x09\x00\x10\x00OB\x00\x00\xff\xff\xff\x7f" + bytes(100),
        "element of 65535 bytes": whole[: patient + 6] + b"\xff\xff" + whole[patient + 8 :],
        "item longer than its sequence": whole
        + b"\x11\x40\x40\x00SQ\x00\x00\x08\x00\x00\x00\xfe\xff\x00\xe0\xff\x00\x00\x00",
        "nested 33 deep": whole[:patient] + nested(33, undefined=False) + whole[patient:],
        "nested 33 deep, of undefined length": whole[:patient] + nested(33, undefined=True) + whole[patient:],
        "nested 20000 deep": whole[:patient] + nested(20_000, undefined=True) + whole[patient:],
        "sequence without end": whole + b"\x11\x40\x40\x00SQ\x00\x00\xff\xff\xff\xff",
        "unknown value representation": whole[:patient] + b"\x10\x00\x10\x00??\x04\x00DOE^" + whole[patient:],
        "SOP Instance UID twice": whole + whole[whole.index(b"\x08\x00\x18\x00UI") : patient],
    }


BROKEN = list(broken(instance()))


@pytest.mark.parametrize("label", BROKEN)
def test_row_15_data_set_that_cannot_be_read_is_c000(target: Target, label: str) -> None:
    dataset = instance()
    with target.attacked("C000", peak=32 << 20):
        assert target.store_bytes(broken(dataset)[label], dataset.SOPInstanceUID) == 0xC000
    assert target.kept(dataset.SOPInstanceUID) is None


def test_row_15_nesting_of_32_is_stored(target: Target) -> None:
    dataset = instance()
    whole = rooms.encoded(dataset)
    patient = whole.index(b"\x10\x00\x10\x00PN")
    with target.attacked():
        deep = whole[:patient] + nested(32, undefined=True) + whole[patient:]
        assert target.store_bytes(deep, dataset.SOPInstanceUID) == 0x0000


# --- row 20

ODD_TEXT = {
    "unknown character set": ("SpecificCharacterSet", b"ISO_IR 999"),
    "character set of bytes": ("SpecificCharacterSet", b"\xff\xfe\\\x00"),
    "CR LF": ("PatientName", b'Secret\r\n{"event":"forged","level":"error"}\r\n'),
    "XML": ("PatientName", b"Secret]]></ParticipantObject><!-- &xxe; -->"),
    "HTML": ("PatientName", b"Secret<script>alert(1)</script>"),
    "format strings": ("PatientName", b"Secret%s%n{0}{__class__}${jndi:ldap://x}"),
    "escape sequences without end": ("PatientName", b"Secret\x1b$B\x1b(J\x1b"),
    "NULs": ("PatientName", b"Secret\x00\x00^\x00"),
    "60000 characters": ("PatientName", b"Secret" * 10_000),
    "CR LF in the patient's ID": ("PatientID", b"SECRET-1\r\n;DROP TABLE instances;--"),
}


@pytest.mark.parametrize(("keyword", "text"), ODD_TEXT.values(), ids=ODD_TEXT)
def test_row_20_odd_text_is_stored_as_received(target: Target, keyword: str, text: bytes) -> None:
    uid = generate_uid()
    data_set = raw_data_set(uid, **{keyword: text})
    with target.attacked() as told:
        entries = len(target.node.trail("image_received"))
        assert target.store_bytes(data_set, uid) == 0x0000
    part10 = target.kept(uid)
    assert part10 is not None
    assert part10[read_file_meta(part10).offset :] == data_set
    assert [line["event"] for line in told].count("image_received") == 1
    [entry] = target.node.trail("image_received")[entries:]
    assert "Secret" not in json.dumps(entry)


def test_row_20_trail_of_all_that_was_stored_verifies(target: Target) -> None:
    verified = target.node.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout


# --- row 21


@pytest.mark.parametrize(
    "executable", [b"MZ\x90\x00\x03", b"\x7fELF\x02\x01\x01", b"#!/bin/sh\n"], ids=["PE", "ELF", "script"]
)
def test_row_21_executable_preamble_is_stored_as_zeros(target: Target, tmp_path: Path, executable: bytes) -> None:
    dataset = films.fresh(films.MR)
    content = films.file_bytes(dataset)
    path = tmp_path / "executable.dcm"
    path.write_bytes(executable.ljust(128, b"\xcc") + content[128:])
    with target.attacked():
        sent = target.storescu([path])
        assert sent.returncode == 0, sent.stdout + sent.stderr
    part10 = target.kept(dataset.SOPInstanceUID)
    assert part10 is not None
    assert part10[:132] == bytes(128) + b"DICM"
    assert executable not in part10


# --- row 19


NAMING = {
    "Study Instance UID": b"\x20\x00\x0d\x00",
    "SOP Instance": b"\x08\x00\x18\x00",
    "SOP Class": b"\x08\x00\x16\x00",
}


@pytest.mark.parametrize("tag", NAMING.values(), ids=NAMING)
def test_row_19_data_set_without_one_of_the_uids_that_name_it_is_a900(target: Target, tag: bytes) -> None:
    dataset = instance()
    uid = str(dataset.SOPInstanceUID)
    whole = rooms.encoded(dataset)
    start = whole.index(tag + b"UI")
    (length,) = struct.unpack_from("<H", whole, start + 6)
    with target.attacked("A900"):
        assert target.store_bytes(whole[:start] + whole[start + 8 + length :], uid) == 0xA900
    assert target.kept(uid) is None


def test_row_19_second_patient_in_a_study_is_accepted_and_alerted_once(target: Target) -> None:
    study, other = generate_uid(), generate_uid()
    with target.attacked("study_of_two_patients") as told:
        for patient in ("ONE", "ONE", "TWO", "TWO", "ONE"):
            assert target.store(instance(StudyInstanceUID=study, PatientID=patient)) == 0x0000
        assert target.store(instance(StudyInstanceUID=other, PatientID="TWO")) == 0x0000
    lines = [line for line in told if line["event"] == "study_of_two_patients"]
    entries = [entry for entry in target.node.trail("alert") if entry["detail"].get("rule") == "study_of_two_patients"]
    assert len(lines) == len(entries) == 1
    assert (entries[0]["study"], entries[0]["patient"]) == (lines[0]["study"], lines[0]["patient"])
    assert entries[0]["actor"]["ae"] == "MODALITY1"


# --- row 22


def test_row_22_same_bytes_again_are_0000_and_no_second_job(target: Target) -> None:
    dataset = instance()
    with target.attacked() as told:
        assert [target.store(dataset) for _ in range(3)] == [0x0000] * 3
    assert [line["event"] for line in told if "image" in line["event"]] == ["image_received"] + ["image_known"] * 2
    assert target.jobs(dataset.SOPInstanceUID) == 1
    assert [entry["action"] for entry in target.node.trail("image_received")[-3:]] == ["C", "R", "R"]


def test_row_22_other_bytes_under_the_same_uid_are_0111_and_audited(target: Target) -> None:
    dataset = instance()
    first = rooms.encoded(dataset)
    with target.attacked("0111"):
        assert target.store(dataset) == 0x0000
        dataset.PatientName = "Secret^Other"
        assert target.store(dataset) == 0x0111
    part10 = target.kept(dataset.SOPInstanceUID)
    assert part10 is not None
    assert part10[read_file_meta(part10).offset :] == first
    assert target.jobs(dataset.SOPInstanceUID) == 1
    entry = target.node.trail("image_received")[-1]
    assert (entry["action"], entry["outcome"], entry["detail"]["status"]) == ("U", "minor", "0111")
