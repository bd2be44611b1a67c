"""Debian's dcmtk as the peer: accepted and refused over TLS, every image as it left storescu."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from support.network import running_node

from radnode import pki
from radnode.part10 import read_file_meta

# pynetdicom installs programs of the same names into the virtual environment
_SYSTEM = os.pathsep.join(("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"))
ECHOSCU, STORESCU = (shutil.which(name, path=_SYSTEM) for name in ("echoscu", "storescu"))

pytestmark = pytest.mark.skipif(not (ECHOSCU and STORESCU), reason="dcmtk is not installed (apt install dcmtk)")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    pki.make_test_pki(folder)
    with running_node(folder) as node:
        yield node


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    pki.make_test_pki(folder)
    return folder


def dcmtk(program, node, *arguments, holder: Path | None = None, name="modality", calling="MODALITY1"):
    holder = holder or node.folder
    tls = ["+tls", str(holder / f"{name}.key"), str(holder / f"{name}.crt"), "+cf", str(node.folder / "ca.crt")]
    titles = ["-aet", calling, "-aec", "RADNODE"]
    command = [program, *tls, *titles, "127.0.0.1", str(node.port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_echoscu_is_accepted(node):
    result = dcmtk(ECHOSCU, node)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CT_small.dcm", ()),
        ("MR_small_implicit.dcm", ("-xi",)),
        ("MR_small_bigendian.dcm", ("-xb",)),
        ("MR_small_RLE.dcm", ("-xr",)),
        ("MR_small_jp2klossless.dcm", ("-xv",)),
        ("MR_small_jpeg_ls_lossless.dcm", ("-xt",)),
        ("JPGExtended.dcm", ("-xx",)),
    ],
)
def test_storescu_is_accepted_in_every_transfer_syntax(node, name, options):
    path = Path(get_testdata_file(name))
    node.received.clear()
    result = dcmtk(STORESCU, node, *options, str(path))
    assert result.returncode == 0, result.stderr
    [(request, data_set)] = node.received
    meta = read_file_meta(path.read_bytes())
    assert request.transfer_syntax_uid == meta.transfer_syntax_uid
    assert request.sop_instance_uid == meta.sop_instance_uid
    assert len(data_set) > 1000  # dcmtk re-encodes lengths, so the bytes are its own


def test_storescu_sends_many_on_one_association(node):
    node.received.clear()
    paths = [get_testdata_file(name) for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "reportsi.dcm")]
    result = dcmtk(STORESCU, node, *paths)
    assert result.returncode == 0, result.stderr
    assert len(node.received) == len(paths)


def test_user_identity_of_storescu_is_ignored(node):
    node.received.clear()
    result = dcmtk(STORESCU, node, "-usr", "DOE^JANE", "-pwd", "secret", get_testdata_file("CT_small.dcm"))
    assert result.returncode == 0, result.stderr
    assert len(node.received) == 1


def test_storescu_that_demands_an_answer_to_its_identity_goes_away_by_itself(node):
    node.refusals.clear()
    result = dcmtk(STORESCU, node, "-usr", "DOE^JANE", "-rsp", get_testdata_file("CT_small.dcm"))
    assert result.returncode != 0  # PS3.7 D.3.3.7: accepted without response, and the requestor may then leave
    assert "Positive response requested but none received" in result.stderr
    assert node.refusals == []
    assert dcmtk(ECHOSCU, node).returncode == 0


def test_echoscu_of_a_foreign_authority_is_refused(node, stranger):
    node.refusals.clear()
    assert dcmtk(ECHOSCU, node, holder=stranger).returncode != 0
    assert node.await_refusals() == ["tls_unknown_authority"]


def test_echoscu_with_an_unknown_title_is_told_1_1_3(node):
    node.refusals.clear()
    result = dcmtk(ECHOSCU, node, calling="STRANGER")
    assert result.returncode != 0
    assert "Calling AE Title Not Recognized" in result.stdout + result.stderr
    assert node.await_refusals() == ["calling_ae_title_unknown"]


def test_echoscu_with_the_certificate_of_another_is_refused(node):
    node.refusals.clear()
    assert dcmtk(ECHOSCU, node, name="admin").returncode != 0
    assert node.await_refusals() == ["certificate_of_another"]


def test_echoscu_without_a_certificate_is_refused(node):
    node.refusals.clear()
    arguments = ["+tla", "+cf", str(node.folder / "ca.crt"), "-aet", "MODALITY1", "-aec", "RADNODE"]
    command = [ECHOSCU, *arguments, "127.0.0.1", str(node.port)]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
    assert node.await_refusals() == ["tls_no_client_certificate"]


def test_echoscu_without_tls_is_refused(node):
    node.refusals.clear()
    command = [ECHOSCU, "-aet", "MODALITY1", "-aec", "RADNODE", "127.0.0.1", str(node.port)]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
    assert node.await_refusals() == ["tls_plain_tcp"]


def test_storescu_without_permission_gets_no_context(node):
    node.refusals.clear()
    node.received.clear()
    result = dcmtk(STORESCU, node, get_testdata_file("CT_small.dcm"), name="admin", calling="ADMIN")
    assert result.returncode != 0
    assert node.received == []
    assert node.await_refusals() == ["store_not_permitted"]
