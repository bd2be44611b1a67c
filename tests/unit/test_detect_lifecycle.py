"""The life of a model: what each step changes, what it refuses, and what of it stands in the trail."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import toys
from support.rooms import Rooms

from radnode.audit.events import Actor
from radnode.detect.analyser import Analyser, load_detector
from radnode.detect.catalogue import Catalogue, installed
from radnode.detect.decoding import DecoderChild
from radnode.detect.lifecycle import Lifecycle
from radnode.detect.trial import try_package
from radnode.errors import NotFoundError, PackageError, RadnodeError
from radnode.settings import DetectSettings

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


class Site:
    """A models folder, its database, and packages that lie elsewhere."""

    def __init__(self, folder: Path, weights: bytes) -> None:
        self.rooms = Rooms(folder)
        self.folder = folder
        self.models = folder / "models"
        toys.trust(self.models)
        self.weights = weights
        self.said: list[tuple[str, str]] = []
        self.ready: list[str] = []
        self.catalogue = Catalogue(self.models, self.rooms.engine)
        self.cycle = Lifecycle(
            self.rooms.stores,
            self.models,
            Actor(user="erika"),
            lambda path: load_detector(path, self.models, "cpu", 1) and None,
        )

    def package(self, version: str, key: Ed25519PrivateKey = toys.KEY, name: str = "toy") -> Path:
        """Write a package beside the node."""
        folder = self.folder / "elsewhere" / f"{name}-{version}"
        how = {"percentiles": [0.0, 100.0], "threshold": 0.5}
        return toys.package(folder, name, self.weights, version=version, key=key, **how)

    def add(self, *versions: str) -> None:
        for version in versions:
            self.cycle.add(self.package(version))

    def analyser(self) -> Analyser:
        return Analyser(
            self.catalogue,
            DecoderChild(1.0),
            device="cpu",
            threads=1,
            refused=lambda model, why: self.said.append((model, why)),
            ready=self.ready.append,
        )

    def active(self) -> str | None:
        try:
            return self.catalogue.active("toy").name
        except NotFoundError:
            return None

    def trail(self) -> list[tuple[str, str, str | None, str | None]]:
        """What the trail says of models: event, model, change, and the version before or the reason."""
        rows = [(entry["event"].split()[1], entry["model"], entry["detail"]) for entry in self.rooms.entries()]
        assert all(entry["actor"]["user"] == "erika" for entry in self.rooms.entries())
        return [(name, model, detail.get("change"), detail.get("version")) for name, model, detail in rows]


@pytest.fixture(scope="module")
def weights() -> bytes:
    return toys.program(toys.Raises())


@pytest.fixture
def site(tmp_path: Path, weights: bytes) -> Iterator[Site]:
    made = Site(tmp_path, weights)
    yield made
    made.rooms.close()


def test_life_of_a_model_is_in_the_trail_step_by_step_with_who_took_it(site: Site) -> None:
    site.add("1.0.0", "1.1.0")
    assert site.active() is None
    assert site.cycle.activate("toy", "1.0.0") is None
    assert site.cycle.shadow("toy", "1.1.0") is None
    assert [(row.version, row.state) for row in site.cycle.listing()] == [("1.0.0", "active"), ("1.1.0", "shadow")]
    assert site.cycle.activate("toy", "1.1.0") == "1.0.0"
    assert site.catalogue.shadow("toy") is None
    assert site.cycle.rollback("toy") == ("1.1.0", "1.0.0")
    assert site.active() == "1.0.0"
    site.cycle.remove("toy", "1.1.0")
    assert site.trail() == [
        ("model_changed", "toy 1.0.0", "added", None),
        ("model_changed", "toy 1.1.0", "added", None),
        ("model_changed", "toy 1.0.0", "activated", None),
        ("model_changed", "toy 1.1.0", "shadowed", None),
        ("model_changed", "toy 1.1.0", "activated", "1.0.0"),
        ("model_changed", "toy 1.0.0", "rolled_back", "1.1.0"),
        ("model_changed", "toy 1.1.0", "removed", None),
    ]
    assert [version for _, version, _ in installed(site.models)] == ["1.0.0"]
    assert sorted(path.name for path in site.models.iterdir()) == ["toy", "trusted"]
    assert site.rooms.rung == ["worker"] * 4


def test_rollbacks_undo_activations_one_by_one_and_then_there_is_none_left(site: Site) -> None:
    site.add("1.0.0", "1.1.0", "1.2.0")
    for version in ("1.0.0", "1.2.0", "1.1.0"):
        site.cycle.activate("toy", version)
    assert [site.cycle.rollback("toy")[1] for _ in range(3)] == ["1.2.0", "1.0.0", None]
    assert site.active() is None
    with pytest.raises(RadnodeError, match="No version of toy was active before"):
        site.cycle.rollback("toy")
    site.cycle.activate("toy", "1.1.0")
    assert site.cycle.rollback("toy") == ("1.1.0", None)


def test_adding_a_higher_version_changes_nothing_of_what_runs(site: Site) -> None:
    how = {"percentiles": [0.0, 100.0], "threshold": 0.5}
    toys.package(site.models / "toy" / "1.0.0", "toy", site.weights, version="1.0.0", **how)  # as `init` puts it there
    assert site.active() == "1.0.0"
    site.add("2.0.0")
    assert site.active() == "1.0.0"
    assert site.cycle.activate("toy", "2.0.0") == "1.0.0"
    assert site.cycle.rollback("toy") == ("2.0.0", "1.0.0")


def test_adding_the_same_package_again_is_no_step_and_another_under_its_name_is_refused(site: Site) -> None:
    site.add("1.0.0")
    package, is_new = site.cycle.add(site.folder / "elsewhere" / "toy-1.0.0")
    assert (package.identity.version, is_new) == ("1.0.0", False)
    how = {"percentiles": [1.0, 99.0], "threshold": 0.5}
    other = toys.package(site.folder / "other", "toy", site.weights, version="1.0.0", **how)
    with pytest.raises(PackageError, match="installed with another content"):
        site.cycle.add(other)
    assert [entry[0] for entry in site.trail()] == ["model_changed", "model_refused"]


def _flip_one_byte(folder: Path) -> None:
    content = bytearray((folder / "weights.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "weights.pt2").write_bytes(content)


def _unsign(folder: Path) -> None:
    (folder / "manifest.sig").unlink()


def _sign_as_stranger(folder: Path) -> None:
    toys.sign_package(folder, STRANGER, "tests")


def _sign_by_unknown(folder: Path) -> None:
    toys.sign_package(folder, STRANGER, "stranger")


def _pickle(folder: Path) -> None:
    (folder / "weights.pt2").write_bytes(pickle.dumps({"weights": 1}))
    manifest = (folder / "model.toml").read_text()
    digest = toys.hashlib.sha256((folder / "weights.pt2").read_bytes()).hexdigest()
    old = manifest.partition('"weights.pt2" = "')[2][:64]
    (folder / "model.toml").write_text(manifest.replace(old, digest))
    toys.sign_package(folder, toys.KEY, "tests")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_flip_one_byte, "weights.pt2 differs from the manifest"),
        (_unsign, "is not signed"),
        (_sign_as_stranger, "does not hold"),
        (_sign_by_unknown, "signed by the unknown key 'stranger'"),
        (_pickle, "not a torch.export archive"),
    ],
)
def test_package_that_cannot_be_trusted_is_refused_with_one_sentence_and_the_node_serves_on(
    site: Site, spoil: object, sentence: str
) -> None:
    site.add("1.0.0")
    site.cycle.activate("toy", "1.0.0")
    analyser = site.analyser()
    before = analyser.load("toy")
    bad = site.package("1.1.0")
    spoil(bad)  # type: ignore[operator]
    with pytest.raises(PackageError) as refused:
        site.cycle.add(bad)
    assert sentence in str(refused.value)
    assert str(refused.value).count(". ") == 0
    analyser.refresh()
    assert analyser.load("toy") is before is not None
    assert [version for _, version, _ in installed(site.models)] == ["1.0.0"]
    entry = site.rooms.entries()[-1]
    assert (entry["event"], entry["outcome"]) == ("110113 model_refused", "serious")
    assert sentence in entry["detail"]["reason"]


def test_version_changed_on_disk_after_it_was_added_is_not_activated_and_the_one_before_serves_on(site: Site) -> None:
    site.add("1.0.0", "1.1.0")
    site.cycle.activate("toy", "1.0.0")
    analyser = site.analyser()
    before = analyser.load("toy")
    _flip_one_byte(site.models / "toy" / "1.1.0")
    for step in (site.cycle.activate, site.cycle.shadow):
        with pytest.raises(PackageError, match="differs"):
            step("toy", "1.1.0")
    assert site.active() == "1.0.0"
    assert analyser.load("toy") is before
    assert [entry[0] for entry in site.trail()[-2:]] == ["model_refused"] * 2


def test_version_changed_on_disk_the_moment_after_it_was_activated_leaves_the_one_before_in_place(site: Site) -> None:
    site.add("1.0.0", "1.1.0")
    site.cycle.activate("toy", "1.0.0")
    analyser = site.analyser()
    before = analyser.load("toy")
    site.cycle.activate("toy", "1.1.0")
    _flip_one_byte(site.models / "toy" / "1.1.0")
    analyser.refresh()
    assert analyser.load("toy") is before
    assert [model for model, _ in site.said] == ["toy 1.1.0"]
    assert site.ready == ["toy 1.0.0"]


def test_analyser_changes_over_with_each_step_and_keeps_nothing_when_no_version_is_active(site: Site) -> None:
    site.add("1.0.0", "1.1.0")
    analyser = site.analyser()
    assert analyser.load("toy") is None
    versions = []
    for step in (lambda: site.cycle.activate("toy", "1.0.0"), lambda: site.cycle.activate("toy", "1.1.0")):
        step()
        analyser.refresh()
        loaded = analyser.load("toy")
        assert loaded is not None
        versions.append(loaded.detector.identity.version)
    for _ in range(2):
        site.cycle.rollback("toy")
        analyser.refresh()
        loaded = analyser.load("toy")
        versions.append("none" if loaded is None else loaded.detector.identity.version)
    assert versions == ["1.0.0", "1.1.0", "1.0.0", "none"]
    assert site.ready == ["toy 1.0.0", "toy 1.1.0", "toy 1.0.0"]


def test_steps_that_make_no_sense_are_refused_and_change_nothing(site: Site) -> None:
    site.add("1.0.0", "1.1.0")
    with pytest.raises(RadnodeError, match="none is active"):
        site.cycle.shadow("toy", "1.1.0")
    site.cycle.activate("toy", "1.0.0")
    site.cycle.shadow("toy", "1.1.0")
    for step, sentence in (
        (lambda: site.cycle.activate("toy", "1.0.0"), "active already"),
        (lambda: site.cycle.activate("toy", "9.9.9"), "not installed"),
        (lambda: site.cycle.activate("toy", "../toy"), "not installed"),
        (lambda: site.cycle.rollback("other"), "no model"),
        (lambda: site.cycle.shadow("toy", "1.0.0"), "is the active version"),
        (lambda: site.cycle.shadow("toy", "1.1.0"), "already"),
        (lambda: site.cycle.remove("toy", "1.1.0"), "in use"),
        (lambda: site.cycle.remove("toy", "1.0.0"), "in use"),
    ):
        with pytest.raises(RadnodeError, match=sentence):
            step()
    assert len(site.trail()) == 4
    assert site.cycle.shadow("toy", None) == "1.1.0"
    assert site.trail()[-1] == ("model_changed", "toy", "unshadowed", "1.1.0")


def test_two_packages_share_no_device_uid_and_versions_of_one_model_look_at_the_same(site: Site) -> None:
    site.add("1.0.0")
    twin = site.package("1.1.0")
    manifest = (twin / "model.toml").read_text()
    first = (site.models / "toy" / "1.0.0" / "model.toml").read_text()
    uid, other = (text.partition("device_uid = ")[2].splitlines()[0] for text in (first, manifest))
    (twin / "model.toml").write_text(manifest.replace(other, uid))
    toys.sign_package(twin, toys.KEY, "tests")
    with pytest.raises(PackageError, match=r"has the device UID of toy 1\.0\.0"):
        site.cycle.add(twin)
    series = toys.series_package(site.folder / "series", "toy", site.weights, version="2.0.0")
    with pytest.raises(PackageError, match="is of the level series"):
        site.cycle.add(series)


def test_trust_in_a_key_is_given_and_withdrawn_under_audit(site: Site) -> None:
    pem = STRANGER.public_key().public_bytes(toys.Encoding.PEM, toys.PublicFormat.SubjectPublicKeyInfo)
    (site.folder / "stranger.pub").write_bytes(pem)
    package = site.package("1.0.0", name="other")
    toys.sign_package(package, STRANGER, "stranger")
    with pytest.raises(PackageError, match="unknown key"):
        site.cycle.add(package)
    assert site.cycle.trust(site.folder / "stranger.pub") == "stranger"
    site.cycle.add(package)
    with pytest.raises(PackageError, match="Another key is trusted as tests"):
        site.cycle.trust(site.folder / "stranger.pub", key_id="tests")
    site.cycle.distrust("stranger")
    with pytest.raises(PackageError, match="unknown key"):
        site.cycle.activate("other", "1.0.0")
    with pytest.raises(NotFoundError):
        site.cycle.distrust("../tests")
    assert [entry[2] for entry in site.trail()] == [None, "trusted", "added", "distrusted", None]
    assert [entry["detail"].get("key") for entry in site.rooms.entries()][1] == "stranger"


def test_package_is_tried_in_a_process_of_its_own(site: Site, tmp_path: Path) -> None:
    package = site.package("1.0.0")
    try_package(package, site.models, DetectSettings())
    series = toys.series_package(tmp_path / "toy-series", "toy-series", site.weights)
    with pytest.raises(PackageError, match=r"^The model toy-series does not give one logit"):
        try_package(series, site.models, DetectSettings())
    with pytest.raises(PackageError, match="hung"):
        try_package(package, site.models, DetectSettings(load_seconds=0.05))
