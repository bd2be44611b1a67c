"""Every file of pydicom's and pydicom-data's test sets: stored bit for bit, or refused with a status and one line."""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from support import films
from support.bad_input import Target, explanation, is_trouble, target_in
from support.network import command, read_pdu, request_pdu, store_command
from support.node import wait_for
from support.strangers import context_results

from radnode.errors import MalformedDataSet, RadnodeError
from radnode.identify import identify
from radnode.network import wire
from radnode.network.command_set import Tag
from radnode.part10 import read_file_meta

DEFAULTS = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # implicit and explicit VR little endian
CT = "1.2.840.10008.5.1.4.1.1.2"
META_BEGINS = 132  # PS3.10 section 7.1: after preamble and prefix

# what storescu is to send, with the option that makes it propose the transfer syntax
DCMTK = {
    "MR_small_implicit.dcm": "-xi",
    "CT_small.dcm": "-xe",
    "MR_small_bigendian.dcm": "-xb",
    "image_dfl.dcm": "-xd",
    "SC_rgb_jpeg_dcmtk.dcm": "-xy",
    "JPGExtended.dcm": "-xx",
    "JPEG-LL.dcm": "-xs",
    "MR_small_jpeg_ls_lossless.dcm": "-xt",
    "MR_small_jp2klossless.dcm": "-xv",
    "JPEG2000.dcm": "-xw",
    "MR_small_RLE.dcm": "-xr",
    "rtplan.dcm": "-xi",
    "reportsi.dcm": "-xe",
    "examples_palette.dcm": "-xe",
}


@dataclass(frozen=True)
class Sent:
    """One data set as it is sent: the bytes of a file, and the names under which they travel."""

    path: Path
    data_set: bytes
    sop_class: str
    sop_instance: str
    syntax: str

    def under(self, uid: str) -> Sent:
        """The same under another UID of the same length, for a file that shares its own with another file."""
        data_set = self.data_set.replace(self.sop_instance.encode(), uid.encode())
        return replace(self, data_set=data_set, sop_instance=uid)


def folders() -> list[Path]:
    """Where the test files of pydicom and pydicom-data lie; nothing is downloaded."""
    own = Path(pydicom.__file__).parent / "data" / "test_files"
    spec = importlib.util.find_spec("data_store")
    assert spec is not None
    assert spec.submodule_search_locations
    return [own, *map(Path, spec.submodule_search_locations)]


FILES = sorted(
    path for folder in folders() for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
)


def sendings(path: Path) -> list[Sent]:
    """How a file is sent: as its File Meta Information says, or else as each of the default transfer syntaxes."""
    content = path.read_bytes()
    try:
        meta = read_file_meta(content)
    except MalformedDataSet:
        data_set = content[end_of_meta(content) :]
        return [Sent(path, data_set, *names(data_set, syntax, (CT, "1.2.3.4")), syntax) for syntax in DEFAULTS]
    data_set, syntax = content[meta.offset :], meta.transfer_syntax_uid
    return [Sent(path, data_set, *names(data_set, syntax, (meta.sop_class_uid, meta.sop_instance_uid)), syntax)]


def end_of_meta(content: bytes) -> int:
    """Where the data set of a file with an incomplete File Meta Information begins; 0 where there is none."""
    if content[META_BEGINS - 4 : META_BEGINS] != b"DICM":
        return 0
    offset = META_BEGINS
    while content[offset : offset + 2] == b"\x02\x00":
        is_long = content[offset + 4 : offset + 6] == b"OB"  # PS3.5 section 7.1.2
        begin, end = (offset + 8, offset + 12) if is_long else (offset + 6, offset + 8)
        offset = end + int.from_bytes(content[begin:end], "little")
    return offset


def names(data_set: bytes, syntax: str, otherwise: tuple[str, str]) -> tuple[str, str]:
    """SOP class and instance UID of a data set, as an SCU reads them, or others, where it cannot be read this way."""
    with suppress(RadnodeError):
        identity = identify(data_set, syntax, max(len(data_set), 1 << 24))
        return identity.SOPClassUID, identity.SOPInstanceUID
    return otherwise


@pytest.fixture(scope="module")
def receiver(lane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A node that is given time, because these files are no attack."""
    patience = {f"RADNODE_NODE__{name}_SECONDS": "20" for name in ("HANDSHAKE", "REQUEST", "IDLE")}
    with target_in(tmp_path_factory.mktemp(f"every-file-{lane}"), lane, **patience) as target:
        yield target


def send(target: Target, sent: Sent) -> str:
    """The status, four hex digits, or how the presentation context was refused."""
    with target.connect() as connection:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about UIDs
            request = request_pdu(offers=[(sent.sop_class, sent.syntax)])
        connection.sendall(request)
        accepted = read_pdu(connection)
        assert accepted[:1] == b"\x02", (sent.path.name, accepted[:10].hex())
        [result] = context_results(accepted).values()
        outcome = {3: "abstract syntax", 4: "transfer syntax"}.get(result, "")
        if result == 0:
            values = store_command(AFFECTED_SOP_CLASS_UID=sent.sop_class, AFFECTED_SOP_INSTANCE_UID=sent.sop_instance)
            outcome = f"{command(connection, 1, values, sent.data_set).ushort(Tag.STATUS):04X}"
        connection.sendall(wire.RELEASE_RQ_PDU)
        assert read_pdu(connection)[:1] == b"\x06"
        return outcome


def test_every_file_is_stored_bit_for_bit_or_refused_with_one_line(receiver: Target) -> None:
    outcomes: Counter[str] = Counter()
    known: set[str] = set()
    pids = receiver.census().pids
    for path in FILES:
        for number, original in enumerate(sendings(path)):
            sent = original
            if sent.sop_instance in known:
                sent = sent.under(f"2.{len(known)}{number}".ljust(len(sent.sop_instance), "7"))
            lines = len(receiver.log())
            outcome = send(receiver, sent)
            told = [explanation(line) for line in receiver.log()[lines:] if is_trouble(line)]
            expected = "context_not_accepted" if "syntax" in outcome else outcome
            assert told == ([] if outcome == "0000" else [expected]), path.name
            if outcome == "0000":
                known.add(sent.sop_instance)
                kept = receiver.kept(sent.sop_instance)
                assert kept is not None
                meta = read_file_meta(kept)
                assert kept[meta.offset :] == sent.data_set, path.name
                assert (meta.sop_class_uid, meta.transfer_syntax_uid) == (sent.sop_class, sent.syntax)
            outcomes[outcome] += 1
            if outcome != "0000":
                print(f"{outcome:16} {path.name}")
    print(f"{len(FILES)} files, sent {outcomes.total()} times: {dict(outcomes.most_common())}")
    assert len(FILES) > 200
    assert outcomes["0000"] > 0.8 * len(FILES)
    assert receiver.census().pids == pids
    receiver.assert_serves()


@pytest.mark.parametrize(("name", "option"), DCMTK.items(), ids=DCMTK)
def test_file_that_storescu_sends_is_stored(receiver: Target, tmp_path: Path, name: str, option: str) -> None:
    [path, *_] = [path for path in FILES if path.name == name]
    dataset = films.fresh(path)
    (tmp_path / name).write_bytes(films.file_bytes(dataset))
    with receiver.attacked():
        done = receiver.storescu([tmp_path / name], "modality", option)
        assert done.returncode == 0, done.stdout + done.stderr
    kept = wait_for(lambda: receiver.kept(str(dataset.SOPInstanceUID)), 5, "it is stored")
    meta = read_file_meta(kept)
    assert meta.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
    if "PixelData" in dataset:
        assert pydicom.dcmread(pydicom.filebase.DicomBytesIO(kept)).PixelData == dataset.PixelData
