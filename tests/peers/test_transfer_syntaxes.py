"""Every transfer syntax that is accepted: sent over TLS, sealed, and the very bytes that were sent come back."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node import STORESCU, NodeProcess, free_port, wait_for
from support.syntaxes import REAL, sample

from radnode.configuration import load_settings
from radnode.jobs.database import reading
from radnode.jobs.index import get_instance
from radnode.network.contexts import TRANSFER_SYNTAXES, keyword
from radnode.network.storage_scu import open_destination
from radnode.network.tls import client_context
from radnode.node import Node
from radnode.part10 import read_file_meta
from radnode.settings import DestinationSettings

STORESCP, DCMCONV = "/usr/bin/storescp", "/usr/bin/dcmconv"

pytestmark = pytest.mark.skipif(not Path(STORESCP).exists(), reason="dcmtk is not installed (apt install dcmtk)")

# How storescu is told to propose it
OPTIONS = {
    "ImplicitVRLittleEndian": "-xi",
    "ExplicitVRLittleEndian": "-xe",
    "ExplicitVRBigEndian": "-xb",
    "DeflatedExplicitVRLittleEndian": "-xd",
    "JPEGBaseline8Bit": "-xy",
    "JPEGExtended12Bit": "-xx",
    "JPEGLosslessSV1": "-xs",
    "JPEGLSLossless": "-xt",
    "JPEGLSNearLossless": "-xu",
    "JPEG2000Lossless": "-xv",
    "JPEG2000": "-xw",
    "RLELossless": "-xr",
    "MPEG2MPML": "-xm",
    "MPEG2MPHL": "-xh",
    "MPEG4HP41": "-xn",
    "MPEG4HP41BD": "-xl",
    "MPEG4HP422D": "-x2",
    "MPEG4HP423D": "-x3",
    "MPEG4HP42STEREO": "-xo",
    "HEVCMP51": "-x4",
    "HEVCM10P51": "-x5",
}


class Vaulted:
    """A serving node without worker, and what it keeps."""

    def __init__(self, process: NodeProcess) -> None:
        self.process = process
        self.node = Node(load_settings(process.config))

    def kept(self, SOPInstanceUID: str) -> bytes:
        """Return the object as it opens from the vault."""
        with reading(self.node.engine) as tx:
            row = get_instance(tx, self.node.pseudonyms.instance(SOPInstanceUID))
        return self.node.vault.get(row.object_id)

    def send(self, *objects: bytes) -> None:
        settings = self.node.settings
        destination = DestinationSettings(name="node", ae_title="RADNODE", host="127.0.0.1", port=self.process.port)
        with open_destination(
            destination,
            context=client_context(settings),
            calling_ae_title="RADNODE",
            objects=objects,
            timeout_seconds=30,
        ) as association:
            for part10 in objects:
                association.store(part10)


@pytest.fixture(scope="module")
def vaulted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vaulted]:
    with NodeProcess(tmp_path_factory.mktemp("syntaxes") / "node") as process:
        process.start(role="intake", wait=("intake",))
        opened = Vaulted(process)
        yield opened
        opened.node.engine.dispose()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and folder of dcmtk's storescp, which writes data sets exactly as it reads them."""
    folder, port = tmp_path_factory.mktemp("reference"), free_port()
    process = subprocess.Popen([STORESCP, "+B", "+xa", "-od", folder, str(port)], stderr=subprocess.PIPE)
    wait_for(lambda: accepts(port), 10, "storescp listens")
    yield port, folder
    process.terminate()
    process.communicate(timeout=10)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def storescu(proposal: str, path: Path, *where: object) -> None:
    """Send one object with Debian's storescu."""
    command = [STORESCU, "-R", proposal, *map(str, where), str(path)]
    sent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert sent.returncode == 0, sent.stderr


def assert_same(kept: bytes, sent: bytes) -> None:
    """Compare data sets, transfer syntax and identity; the File Meta Information is each receiver's own."""
    found, wanted = read_file_meta(kept), read_file_meta(sent)
    assert found.transfer_syntax_uid == wanted.transfer_syntax_uid
    assert found.sop_class_uid == wanted.sop_class_uid
    assert kept[found.offset :] == sent[wanted.offset :]


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=keyword)
def test_data_set_is_kept_bit_for_bit(vaulted: Vaulted, tmp_path: Path, syntax: str) -> None:
    part10 = sample(keyword(syntax), tmp_path)
    meta = read_file_meta(part10)
    assert meta.transfer_syntax_uid == syntax
    vaulted.send(part10)
    assert_same(vaulted.kept(meta.sop_instance_uid), part10)


@pytest.mark.parametrize("name", OPTIONS)
def test_what_storescu_sends_is_kept_as_dcmtk_itself_would_keep_it(
    vaulted: Vaulted, reference: tuple[int, Path], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "sent.dcm"
    if name == "DeflatedExplicitVRLittleEndian":  # that of pydicom has been sent, and its UID is deflated with it
        plain = tmp_path / "plain.dcm"
        plain.write_bytes(sample("ExplicitVRLittleEndian", tmp_path))
        subprocess.run([DCMCONV, "+td", plain, path], check=True, timeout=30)
    else:
        path.write_bytes(sample(name, tmp_path))
    meta = read_file_meta(path.read_bytes())
    assert keyword(meta.transfer_syntax_uid) == name
    port, folder = reference
    pki = vaulted.process.folder / "pki"
    tls = ["+tls", pki / "modality.key", pki / "modality.crt", "+cf", pki / "ca.crt"]
    storescu(OPTIONS[name], path, "127.0.0.1", port)
    storescu(OPTIONS[name], path, *tls, "-aet", "MODALITY1", "-aec", "RADNODE", "127.0.0.1", vaulted.process.port)
    [written] = folder.glob(f"*{meta.sop_instance_uid}")
    assert_same(vaulted.kept(meta.sop_instance_uid), written.read_bytes())


def test_every_real_sample_is_of_a_syntax_that_is_accepted() -> None:
    assert {keyword(syntax) for syntax in TRANSFER_SYNTAXES} >= {*REAL, *OPTIONS}
