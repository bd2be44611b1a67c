"""Model packages: what loads, what does not, and which file is named."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from radnode.detect.catalogue import Catalogue, installed
from radnode.detect.package import Package, load_package, load_trusted, sign_package, verify_package
from radnode.errors import NotFoundError, PackageError
from radnode.model import Code

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = {"tests": KEY.public_key()}

MANIFEST = """
format = 1
name = "toy"
version = "1.2.3"
device_uid = "2.25.42"
manufacturer = "radnode"
status = "research"
licence = "Apache-2.0"
intended_use = "Tests."
weights = "weights.pt2"
performance = []
[files]
"weights.pt2" = "{weights}"
"MODEL_CARD.md" = "{card}"
[accepts]
level = "instance"
sop_classes = ["1.2.840.10008.5.1.4.1.1.1"]
modalities = ["CR"]
body_parts = ["CHEST"]
views = ["AP", "PA"]
missing_body_part = "accept"
missing_view = "accept"
photometric_interpretations = ["MONOCHROME2"]
min_rows = 64
min_columns = 64
[input]
size = 32
percentiles = [1.0, 99.0]
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
[output]
threshold = 0.5
finding = {{ value = "112001", scheme = "DCM", meaning = "Opacity" }}
site = {{ value = "39607008", scheme = "SCT", meaning = "Lung" }}
calibration = {{ method = "platt", slope = 1.0, intercept = 0.0 }}
region = {{ kind = "box", share_of_peak = 0.4, floor = 0.05, min_peak = 0.05, max_regions = 10 }}
[training]
split = "none"
deidentification = "synthetic"
pretrained = "none"
seed = 0
command = "none"
[[training.sources]]
name = "noise"
licence = "CC0-1.0"
citation = "none"
images = 0
patients = 0
"""


def write(folder: Path, text: str = MANIFEST) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.pt2").write_bytes(b"numbers")
    (folder / "MODEL_CARD.md").write_bytes(b"# toy")
    digests = {
        "weights": hashlib.sha256(b"numbers").hexdigest(),
        "card": hashlib.sha256(b"# toy").hexdigest(),
    }
    (folder / "model.toml").write_text(text.format(**digests))
    return folder


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    folder = write(tmp_path / "toy" / "1.2.3")
    sign_package(folder, KEY, "tests")
    return folder


def test_signed_package_loads_with_the_identity_of_its_manifest(signed: Path) -> None:
    package = load_package(signed, TRUSTED)
    assert isinstance(package, Package)
    assert (package.identity.name, package.identity.version) == ("toy", "1.2.3")
    assert package.identity.device_uid == "2.25.42"
    assert package.identity.digest == hashlib.sha256((signed / "model.toml").read_bytes()).hexdigest()
    assert package.target == Code("112001", "DCM", "Opacity")
    assert package.key_id == "tests"
    assert verify_package(signed, TRUSTED) == []


@pytest.mark.parametrize("name", ["weights.pt2", "MODEL_CARD.md"])
def test_changed_file_is_named_and_does_not_load(signed: Path, name: str) -> None:
    (signed / name).write_bytes((signed / name).read_bytes() + b"!")
    with pytest.raises(PackageError, match=f"{name} differs"):
        load_package(signed, TRUSTED)
    assert verify_package(signed, TRUSTED) == [f"{name} differs from the manifest"]


def test_missing_and_extra_files_are_each_named(signed: Path) -> None:
    (signed / "MODEL_CARD.md").unlink()
    (signed / "figures").mkdir()
    (signed / "figures" / "roc.png").write_bytes(b"")
    assert verify_package(signed, TRUSTED) == [
        "MODEL_CARD.md is missing",
        "figures/roc.png is not in the manifest",
    ]
    with pytest.raises(PackageError, match=r"MODEL_CARD\.md is missing"):
        load_package(signed, TRUSTED)


def test_symbolic_link_in_place_of_a_file_does_not_load(signed: Path, tmp_path: Path) -> None:
    (signed / "weights.pt2").rename(tmp_path / "elsewhere")
    (signed / "weights.pt2").symlink_to(tmp_path / "elsewhere")
    assert verify_package(signed, TRUSTED) == ["weights.pt2 is a symbolic link"]


def test_every_changed_byte_of_the_manifest_breaks_the_signature(signed: Path) -> None:
    whole = (signed / "model.toml").read_bytes()
    for position in range(0, len(whole), 37):
        changed = bytearray(whole)
        changed[position] ^= 1
        (signed / "model.toml").write_bytes(changed)
        with pytest.raises(PackageError, match="signature"):
            load_package(signed, TRUSTED)


def test_changed_manifest_is_reported_together_with_the_files_that_differ(signed: Path) -> None:
    text = (signed / "model.toml").read_text()
    (signed / "model.toml").write_text(text.replace("threshold = 0.5", "threshold = 0.1"))
    (signed / "weights.pt2").write_bytes(b"other")
    findings = verify_package(signed, TRUSTED)
    assert len(findings) == 2
    assert "signature" in findings[0]
    assert findings[1] == "weights.pt2 differs from the manifest"


def test_unsigned_package_does_not_load(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy" / "1.2.3")
    with pytest.raises(PackageError, match="not signed"):
        load_package(folder, TRUSTED)


def test_package_of_an_unknown_key_does_not_load(signed: Path) -> None:
    with pytest.raises(PackageError, match="unknown key 'tests'"):
        load_package(signed, {"other": KEY.public_key()})


def test_another_key_under_a_trusted_name_does_not_load(signed: Path) -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(PackageError, match="does not hold"):
        load_package(signed, {"tests": other.public_key()})


@pytest.mark.parametrize("text", ["", "key-id: tests\n", "key-id: tests\nsignature: ###\n", "\xff\n\n"])
def test_malformed_signature_file_does_not_load(signed: Path, text: str) -> None:
    (signed / "manifest.sig").write_bytes(text.encode("latin-1"))
    with pytest.raises(PackageError, match="not a signature file"):
        load_package(signed, TRUSTED)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("weights.pt2", "weights.pth", "pickle"),
        ('status = "research"', 'status = "approved"', "status"),
        ("threshold = 0.5", "threshold = 1.5", "threshold"),
        ("seed = 0", "sed = 0", "seed"),
        ('"MODEL_CARD.md"', '"../MODEL_CARD.md"', "files"),
        ('device_uid = "2.25.42"', 'device_uid = "1.2.3"', "device_uid"),
        ("std = [0.2, 0.2, 0.2]", "std = [0.2, 0.0, 0.2]", "std"),
        ("format = 1", "format = ", "TOML"),
    ],
)
def test_unusable_manifest_is_neither_signed_nor_loaded(tmp_path: Path, old: str, new: str, named: str) -> None:
    folder = write(tmp_path / "toy" / "1.2.3", MANIFEST.replace(old, new))
    with pytest.raises(PackageError, match=named):
        sign_package(folder, KEY, "tests")
    assert not (folder / "manifest.sig").exists()


def test_weights_changed_after_loading_are_not_handed_out(signed: Path) -> None:
    package = load_package(signed, TRUSTED)
    assert package.read_weights() == b"numbers"
    (signed / "weights.pt2").write_bytes(b"other")
    with pytest.raises(PackageError, match=r"weights\.pt2 differs"):
        package.read_weights()


def test_trusted_keys_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "trusted").mkdir()
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "trusted" / "ours.pub").write_bytes(pem)
    assert list(load_trusted(tmp_path)) == ["ours"]
    (tmp_path / "trusted" / "broken.pub").write_bytes(b"no key")
    with pytest.raises(PackageError, match=r"broken\.pub"):
        load_trusted(tmp_path)


def test_highest_version_is_active_where_none_was_activated(tmp_path: Path) -> None:
    for version in ("1.2.3", "1.10.0", "1.9.9"):
        write(tmp_path / "toy" / version)
    (tmp_path / "trusted").mkdir()
    assert [version for _, version, _ in installed(tmp_path)] == ["1.2.3", "1.9.9", "1.10.0"]
    assert Catalogue(tmp_path).active("toy").name == "1.10.0"
    with pytest.raises(NotFoundError, match="no model"):
        Catalogue(tmp_path).active("../toy")


def test_packages_are_listed_and_checked_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "
        "import radnode.detect.catalogue, radnode.detect.package, radnode.detect.gate, radnode.detect.decoding, "
        "radnode.detect.detector, radnode.detect.lifecycle, radnode.detect.trial"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
