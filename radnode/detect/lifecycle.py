"""The life of a model on a node: added, run in the shadow, activated, rolled back, removed, while the node runs.

Each step is checked, audited with who did it, and one commit; workers notice it between two batches. What is refused is
audited too, and changes nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from radnode.audit import events
from radnode.audit.events import MAX_DETAIL_LENGTH, Actor, AuditRecord
from radnode.detect.catalogue import NAME, VERSION, Catalogue, highest, installed
from radnode.detect.package import MANIFEST, SIGNATURE, Package, load_package, load_trusted, public_key
from radnode.durable import sync_folder
from radnode.errors import NotFoundError, PackageError, RadnodeError, StoreUnavailable
from radnode.jobs.database import reading, transaction
from radnode.jobs.models import Standing, get_change, record_change, standing
from radnode.stores import Stores

_ADDING = ".adding-"
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One installed package: its state is active, shadow, or "" for neither."""

    name: str
    version: str
    state: str
    path: Path


class Lifecycle:
    """The models of one node, in `folder`. `attempt` tries a package and raises PackageError when it cannot be used."""

    def __init__(self, stores: Stores, folder: Path, actor: Actor, attempt: Callable[[Path], None]) -> None:
        self._stores = stores
        self._folder = folder
        self._actor = actor
        self._attempt = attempt
        self._catalogue = Catalogue(folder, stores.engine)

    def listing(self) -> list[ModelRow]:
        """Return what is installed, by name and rising version."""
        rows = []
        for name, version, path in installed(self._folder):
            try:
                active = self._catalogue.active(name)
            except NotFoundError:
                active = None
            state = "active" if path == active else "shadow" if path == self._catalogue.shadow(name) else ""
            rows.append(ModelRow(name, version, state, path))
        return rows

    def add(self, source: Path) -> tuple[Package, bool]:
        """Install a package; return it, and whether it is new here. It is not active, nor in any shadow.

        Raises:
            PackageError: it is unsigned, changed, of a stranger, does not load, or is not what its name promises.
            StoreUnavailable: it cannot be written.
        """
        with self._refusing(source.resolve().name):
            package = load_package(source, load_trusted(self._folder))
        name, version = package.identity.name, package.identity.version
        target = self._folder / name / version
        with self._refusing(f"{name} {version}"):
            if target.exists():
                self._same(package, target)
                return package, False
            self._fits(package)
            copy = self._copy(package)
            try:
                load_package(copy, load_trusted(self._folder))
                self._attempt(copy)
                with transaction(self._stores.engine) as tx:
                    self._pin(tx, name)
                    self._record(tx, package, "added")
                self._install(copy, target)
            finally:
                shutil.rmtree(copy.parent, ignore_errors=True)
        return package, True

    def activate(self, name: str, version: str) -> str | None:
        """Make a version the active one; return which one was, None for none. It leaves the shadow.

        Raises:
            NotFoundError: it is not installed.
            PackageError: it cannot be used; nothing was changed.
            RadnodeError: it is active already.
        """
        package = self._checked(name, version)
        with transaction(self._stores.engine) as tx:
            stands = self._pin(tx, name)
            if stands.active == version:
                raise RadnodeError(f"{name} {version} is active already.")
            shadow = None if stands.shadow == version else stands.shadow
            now = self._stores.clock()
            record_change(tx, name, active=version, shadow=shadow, under=stands.change, now=now)
            self._record(tx, package, "activated", stands.active)
        self._stores.wake("worker")
        return stands.active

    def rollback(self, name: str) -> tuple[str | None, str | None]:
        """Undo the last activation that stands; return which version was active and which one is, None for none.

        Raises:
            NotFoundError: there is no such model.
            RadnodeError: there is no activation to undo.
            PackageError: the version before cannot be used; nothing was changed.
        """
        with reading(self._stores.engine) as tx:
            stands = standing(tx, name)
            back = None if stands is None or stands.under is None else get_change(tx, stands.under)
        if stands is None or back is None:
            self._known(name)
            raise RadnodeError(f"No version of {name} was active before this one on this node.")
        package = None if back.active is None else self._checked(name, back.active)
        with transaction(self._stores.engine) as tx:
            if standing(tx, name) != stands:
                raise RadnodeError(f"{name} was changed by somebody else at this moment; look, and try again.")
            shadow = None if stands.shadow == back.active else stands.shadow
            now = self._stores.clock()
            record_change(tx, name, active=back.active, shadow=shadow, under=back.under, now=now)
            self._record(tx, package or name, "rolled_back", stands.active)
        self._stores.wake("worker")
        return stands.active, back.active

    def shadow(self, name: str, version: str | None) -> str | None:
        """Run a version beside the active one, or with None no version; return which one did until now.

        Raises:
            NotFoundError: it is not installed.
            PackageError: it cannot be used; nothing was changed.
            RadnodeError: it is the active one, or none is active, or it is as asked already.
        """
        if version is None:
            self._known(name)
        package = None if version is None else self._checked(name, version)
        with transaction(self._stores.engine) as tx:
            stands = self._pin(tx, name)
            if stands.shadow == version:
                raise RadnodeError(f"{version or 'No version'} of {name} runs in the shadow already.")
            if version is not None and stands.active in (None, version):
                why = "is the active version" if stands.active else "would have nothing to run beside: none is active"
                raise RadnodeError(f"{name} {version} {why}.")
            now = self._stores.clock()
            record_change(tx, name, active=stands.active, shadow=version, under=stands.under, now=now)
            self._record(tx, package or name, "shadowed" if version else "unshadowed", stands.shadow)
        self._stores.wake("worker")
        return stands.shadow

    def remove(self, name: str, version: str) -> None:
        """Take a package off this node. Its results, reports and the trail stay.

        Raises:
            NotFoundError: it is not installed.
            RadnodeError: it is active, runs in the shadow, or a rollback would need it.
        """
        path = self._path(name, version)
        with transaction(self._stores.engine) as tx:
            stands: Standing | None = self._pin(tx, name)
            while stands is not None:
                if version in (stands.active, stands.shadow):
                    raise RadnodeError(f"{name} {version} is in use, or a rollback goes back to it; it stays.")
                stands = None if stands.under is None else get_change(tx, stands.under)
            self._record(tx, f"{name} {version}", "removed")
        gone = Path(tempfile.mkdtemp(prefix=_ADDING, dir=self._folder))
        path.rename(gone / version)
        shutil.rmtree(gone)

    def trust(self, path: Path, *, key_id: str | None = None) -> str:
        """Trust an Ed25519 public key (PEM) under an id, the stem of its file where none is said; return the id.

        Raises:
            PackageError: it is no such key, or another is trusted under that id.
        """
        name = key_id or path.stem
        if not NAME.fullmatch(name):
            raise PackageError(f"{name!r} cannot be the id of a key: lower case, digits and hyphens.")
        content = public_key(path)
        target = self._folder / "trusted" / f"{name}.pub"
        if target.exists() and target.read_bytes() != content:
            raise PackageError(f"Another key is trusted as {name}; withdraw it first, or choose another id.")
        with transaction(self._stores.engine) as tx:
            self._record_trust(tx, "trusted", name)
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_bytes(content)
            sync_folder(target.parent)
        except OSError as error:
            raise StoreUnavailable(f"The key cannot be written to {target}: {error.strerror}.") from error
        return name

    def distrust(self, key_id: str) -> None:
        """Trust a key no longer: what it signed loads no more; what is loaded runs on until the node starts again.

        Raises:
            NotFoundError: no such key is trusted.
        """
        path = self._folder / "trusted" / f"{key_id}.pub"
        if not NAME.fullmatch(key_id) or not path.is_file():
            raise NotFoundError(f"No key {key_id} is trusted here.")
        with transaction(self._stores.engine) as tx:
            self._record_trust(tx, "distrusted", key_id)
        path.unlink()
        sync_folder(path.parent)

    def _record_trust(self, tx: Connection, change: str, key_id: str) -> None:
        detail = {"change": change, "key": key_id}
        self._stores.audit.record(tx, AuditRecord(events.MODEL_CHANGED, self._actor, detail=detail))

    def _known(self, name: str) -> None:
        if highest(self._folder, name) is None:
            raise NotFoundError(f"There is no model {name!r} in the models folder; see `radnode models list`.")

    def _path(self, name: str, version: str) -> Path:
        self._known(name)
        path = self._folder / name / version
        if not VERSION.fullmatch(version) or not (path / MANIFEST).is_file():
            raise NotFoundError(f"{name} {version} is not installed; see `radnode models list`.")
        return path

    def _checked(self, name: str, version: str) -> Package:
        """Return an installed package that can be used."""
        path = self._path(name, version)
        with self._refusing(f"{name} {version}"):
            package = load_package(path, load_trusted(self._folder))
            if (package.identity.name, package.identity.version) != (name, version):
                raise PackageError(f"The package in {name}/{version} calls itself {_called(package)}.")
            self._fits(package)
            self._attempt(path)
        return package

    def _fits(self, package: Package) -> None:
        """See that a package can stand beside the others of its name.

        Raises:
            PackageError: a version of that name looks at something else, or another package has its device UID.
        """
        name, level = package.identity.name, package.manifest.accepts.level
        if not NAME.fullmatch(name):
            raise PackageError(f"{name!r} cannot be the name of a model.")
        trusted = load_trusted(self._folder)
        for other, version, path in installed(self._folder):
            try:
                found = load_package(path, trusted)
            except PackageError:
                continue
            if other == name and found.manifest.accepts.level != level:
                raise PackageError(
                    f"{_called(package)} is of the level {level}, {version} is not: give it another name."
                )
            same_device = found.identity.device_uid == package.identity.device_uid
            if same_device and found.identity.digest != package.identity.digest:
                raise PackageError(f"{_called(package)} has the device UID of {other} {version}; each has its own.")

    def _same(self, package: Package, target: Path) -> None:
        """See that what is installed is this very package."""
        there = load_package(target, load_trusted(self._folder))
        if there.identity.digest != package.identity.digest:
            raise PackageError(f"{_called(package)} is installed with another content; give it a new version.")

    def _pin(self, tx: Connection, name: str) -> Standing:
        """Return how a model stands, written down from now on: what is added to the folder changes nothing."""
        found = standing(tx, name)
        if found is None:
            active = highest(self._folder, name)
            record_change(tx, name, active=active, shadow=None, under=None, now=self._stores.clock())
            found = standing(tx, name)
            assert found is not None  # noqa: S101 (it was inserted a line above)
        return found

    def _copy(self, package: Package) -> Path:
        """Copy a package into a folder beside the others, durable, under its version."""
        for stale in self._folder.glob(f"{_ADDING}*"):  # of a command that was killed
            if time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)
        try:
            folder = Path(tempfile.mkdtemp(prefix=_ADDING, dir=self._folder)) / package.identity.version
            folder.mkdir(mode=0o700)
            for name in (MANIFEST, SIGNATURE, *package.manifest.files):
                target = folder / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with target.open("xb") as file:
                    file.write((package.path / name).read_bytes())
                    os.fsync(file.fileno())
            for path in (folder, *(item for item in folder.rglob("*") if item.is_dir())):
                sync_folder(path)
        except OSError as error:
            raise StoreUnavailable(f"The package cannot be copied into {self._folder}: {error.strerror}.") from error
        return folder

    def _install(self, copy: Path, target: Path) -> None:
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            copy.rename(target)
            sync_folder(target.parent)
            sync_folder(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"The package cannot be put into {target.parent}: {error.strerror}.") from error

    def _record(self, tx: Connection, model: Package | str, change: str, before: str | None = None) -> None:
        detail: dict[str, str | int] = {"change": change}
        if isinstance(model, Package):
            detail["digest"] = model.identity.digest
        if before is not None:
            detail["version"] = before
        called = model if isinstance(model, str) else _called(model)
        self._stores.audit.record(tx, AuditRecord(events.MODEL_CHANGED, self._actor, model=called, detail=detail))

    def _refusing(self, model: str) -> _Refusing:
        return _Refusing(self._stores, AuditRecord(events.MODEL_REFUSED, self._actor, model=model[:64]))


class _Refusing:
    """Audits a PackageError that leaves the block."""

    def __init__(self, stores: Stores, record: AuditRecord) -> None:
        self._stores = stores
        self._record = record

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, PackageError):
            with transaction(self._stores.engine) as tx:
                reason = {"reason": str(error)[:MAX_DETAIL_LENGTH]}
                self._stores.audit.record(tx, replace(self._record, detail=reason))


def _called(package: Package) -> str:
    return f"{package.identity.name} {package.identity.version}"
