"""What `scripts/fuzz` throws bytes at: one function a parser, which raises only for a finding.

The first byte of an input chooses a variant where a target has several (transfer syntax, lane); the rest is what the
parser gets. tests/property/test_fuzz_corpus.py sends every file of tests/corpus through the same functions.
"""

from __future__ import annotations

import atexit
import contextlib
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom.pdu import A_ASSOCIATE_RQ

from radnode import commitment_sets, pki
from radnode.audit import verify
from radnode.audit.checkpoint import Checkpoint, Signer
from radnode.detect.manifest import parse_manifest
from radnode.errors import AuditError, InputError, MalformedDataSet, PackageError, SealBroken
from radnode.identify import Identifier, Identity
from radnode.network import command_set, screen, wire
from radnode.part10 import read_file_meta
from radnode.storage import sealing
from support import raw_peer
from support.network import Node, read_pdu

MAX_INFLATED = 1 << 20  # bytes; what a deflate bomb of a fuzzer may become
STUDY_KEY = bytes(range(32))
AUDIT_SIGNER = Signer("radnode.example/fuzz", Ed25519PrivateKey.from_private_bytes(STUDY_KEY))
_OPEN = contextlib.ExitStack()  # listeners, for the life of the process
atexit.register(_OPEN.close)
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)


def fuzz_identify(data: bytes) -> None:
    """An Identity or an InputError, the same in one piece and in many; where pydicom reads the bytes, the same UIDs.

    The first byte modulo 5 is the transfer syntax, its five highest bits the length of a piece.
    """
    first, data_set = data[0] if data else 0, data[1:]
    syntax, step = SYNTAXES[first % len(SYNTAXES)], (first >> 3) + 1
    found = _answer(data_set, syntax, len(data_set) + 1)
    assert found == _answer(data_set, syntax, step)
    if isinstance(found, Identity):
        check_against_pydicom(found, data_set, syntax)


def _answer(data_set: bytes, syntax: str, step: int) -> Identity | type[InputError]:
    """What `identify` says of a data set that comes in pieces of `step` bytes."""
    identifier = Identifier(syntax, MAX_INFLATED)
    try:
        for start in range(0, len(data_set), step):
            identifier.feed(memoryview(data_set)[start : start + step])
        return identifier.finish()
    except InputError as error:
        return type(error)


def check_against_pydicom(found: Identity, data_set: bytes, syntax: str) -> None:
    """Compare UIDs and a plain Patient ID with pydicom's reading of the same bytes."""
    uid = UID(syntax)
    if uid.is_deflated:
        data_set = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data_set)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says what it thinks of odd values
        try:
            dataset = read_dataset(BytesIO(data_set), uid.is_implicit_VR, uid.is_little_endian)
            raw = {keyword: dataset.get_item(keyword).value for keyword in Identity.__slots__ if keyword in dataset}
        except Exception:  # noqa: BLE001 - what pydicom cannot read at all it does not contradict
            return
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = raw.get(keyword)
        text = value.rstrip(b"\0 ").decode("latin-1") if isinstance(value, bytes) else str(value)
        assert text == getattr(found, keyword), keyword
    patient = raw.get("PatientID") or b""
    if isinstance(patient, bytes) and patient.isascii() and b"\x1b" not in patient:
        assert patient.decode().strip(" \0") == found.PatientID


def fuzz_part10(data: bytes) -> None:
    """A FileMeta whose data set begins within the file, or MalformedDataSet."""
    with contextlib.suppress(MalformedDataSet):
        meta = read_file_meta(data)
        assert 132 < meta.offset <= len(data)


def fuzz_command_set(data: bytes) -> None:
    """A command set that can be asked everything and answered, or MalformedCommand."""
    with contextlib.suppress(command_set.MalformedCommand):
        command = command_set.CommandSet.parse(data)
        for tag in (command_set.Tag.AFFECTED_SOP_CLASS_UID, command_set.Tag.AFFECTED_SOP_INSTANCE_UID):
            uid = command.uid(tag)
            assert uid is None or 0 < len(uid) <= 64
        if command.is_answered:
            command_set.CommandSet.parse(command_set.response(command, 0))
        _ = command.has_data_set


def fuzz_request(data: bytes) -> None:
    """An A-ASSOCIATE-RQ is screened, then decoded by pynetdicom; no warning quotes more than digits and periods."""
    request = bytearray(struct.pack(">BxL", 1, len(data)) + data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", r"Invalid value for VR UI: '[0-9. ]+(\\x00)?'\.")
        try:
            screen.titles(request)
            screen.supports_version_1(request)
            screen.make_decodable(request)
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(bytes(request))
            pdu.to_primitive()
        except Warning:
            raise
        except Exception:  # noqa: BLE001 - pynetdicom's decoders raise whatever the bytes make them raise
            return


def fuzz_wire(data: bytes) -> None:
    """The requesting side reads an answer, or raises ProtocolError."""
    with contextlib.suppress(wire.ProtocolError):
        for _, fragment in wire.read_p_data(data):
            fuzz_command_set(fragment)
    with contextlib.suppress(wire.ProtocolError):
        wire.read_associate_ac(data)


def fuzz_association(data: bytes) -> None:
    """A real listener: PDU by PDU, then the peer closes. It ends the connection, and nothing unexpected was raised.

    Bit 0 of the first byte: begin with a legal request. The other bits: which lane.
    """
    flags, rest = (data[0], data[1:]) if data else (0, b"")
    node = _node(raw_peer.LANES[(flags >> 1) % len(raw_peer.LANES)])
    pdus = [raw_peer.REQUEST, *raw_peer.cut(rest)] if flags & 1 else raw_peer.cut(rest)
    with raw_peer.connect(node) as connection:
        with contextlib.suppress(ConnectionError):
            for pdu in pdus:
                connection.sendall(pdu)
                if pdu[:1] == b"\x01" and raw_peer.is_whole(pdu) and not read_pdu(connection):
                    break
        raw_peer.finish(connection)
    assert node.failures == []
    for kept in (node.received, node.refusals, node.events, node.failures):
        kept.clear()


def fuzz_commitment(data: bytes) -> None:
    """A storage commitment request and a report, read and written again to the same, or an InputError."""
    syntax = (commitment_sets.IMPLICIT, commitment_sets.EXPLICIT)[data[0] % 2] if data else commitment_sets.IMPLICIT
    with contextlib.suppress(InputError):
        request = commitment_sets.read_request(data[1:], syntax)
        assert commitment_sets.read_request(commitment_sets.write_request(request, syntax), syntax) == request
    with contextlib.suppress(InputError):
        report = commitment_sets.read_report(data[1:], syntax)
        assert commitment_sets.read_report(commitment_sets.write_report(report, syntax), syntax) == report


def fuzz_sealing(data: bytes) -> None:
    """A changed sealed object opens as what was sealed or not at all; also when its header's checksum was mended."""
    fields, rest = data[: sealing.HEADER - 4], data[sealing.HEADER :]
    for sealed in (data, fields + struct.pack(">I", zlib.crc32(fields)) + rest):
        with contextlib.suppress(SealBroken):
            source = BytesIO(sealed)
            header = sealing.read_header(source)
            assert header.encode() == sealed[: sealing.HEADER]
            plaintext = b"".join(sealing.unseal(header, source, STUDY_KEY))
            chunks = len(plaintext) // header.chunk_size + 1
            assert len(plaintext) + sealing.TAG * chunks == len(sealed) - sealing.HEADER


def fuzz_manifest(data: bytes) -> None:
    """A manifest, or PackageError."""
    with contextlib.suppress(PackageError):
        parse_manifest(data)


def fuzz_audit(data: bytes) -> None:
    """A trail and its checkpoints (behind a NUL) are judged, never an exception; so are the node's own readers."""
    trail, _, notes = data.partition(b"\0")
    folder = _audit_folder()
    (folder / "trail-000000000001.jsonl").write_bytes(trail)
    (folder / "checkpoints" / "0001.notes").write_bytes(notes)
    found = verify.verify(folder, folder / "audit.pub")
    assert found.ok == (not found.problem)
    with contextlib.suppress(AuditError):
        Checkpoint.from_text(AUDIT_SIGNER.verifier.open(notes.decode(errors="replace")))
    with contextlib.suppress(AuditError):
        Checkpoint.from_text(notes.decode(errors="replace"))


@cache
def _audit_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="radnode-fuzz-"))
    (folder / "checkpoints").mkdir()
    (folder / "audit.pub").write_text(str(AUDIT_SIGNER.verifier))
    verify._SETTLE_SECONDS = 0  # nobody is writing here
    return folder


@cache
def _node(lane: bool) -> Node:
    """One listener a lane."""
    return _OPEN.enter_context(raw_peer.plain_node(_pki(), lane))


@cache
def _pki() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="radnode-fuzz-"))
    pki.make_test_pki(folder)
    return folder


TARGETS: dict[str, Callable[[bytes], None]] = {
    "identify": fuzz_identify,
    "part10": fuzz_part10,
    "command_set": fuzz_command_set,
    "request": fuzz_request,
    "wire": fuzz_wire,
    "association": fuzz_association,
    "sealing": fuzz_sealing,
    "audit": fuzz_audit,
    "manifest": fuzz_manifest,
    "commitment": fuzz_commitment,
}
