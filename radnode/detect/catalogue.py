"""Which model packages a models folder holds, and which version of each is active. Imports without torch."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import Engine

from radnode.detect.package import MANIFEST
from radnode.errors import NotFoundError
from radnode.jobs.database import reading
from radnode.jobs.models import newest_change, standing

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}")


def installed(folder: Path) -> list[tuple[str, str, Path]]:
    """Return (name, version, path) of each package in a models folder, by name and rising version.

    Nothing is verified: that is `load_package`'s work.
    """
    found = [
        (path.parent.parent.name, path.parent.name, path.parent)
        for path in folder.glob(f"*/*/{MANIFEST}")
        if NAME.fullmatch(path.parent.parent.name) and VERSION.fullmatch(path.parent.name)
    ]
    return sorted(found, key=lambda item: (item[0], _order(item[1])))


def highest(folder: Path, name: str) -> str | None:
    """Return the highest version of a model that is installed, None for none."""
    versions = [version for other, version, _ in installed(folder) if other == name]
    return versions[-1] if versions else None


class Catalogue:
    """The packages of a models folder, and what the database of the node says of them; without one, nothing."""

    def __init__(self, folder: Path, engine: Engine | None = None) -> None:
        self.folder = folder
        self._engine = engine

    def active(self, name: str) -> Path:
        """Return the folder of the active version: the one that was activated, else the highest.

        Raises:
            NotFoundError: no version is installed, or none is active.
            StoreUnavailable: the database cannot be read.
        """
        if self._engine is not None:
            with reading(self._engine) as tx:
                stands = standing(tx, name)
            if stands is not None and stands.active is None:
                raise NotFoundError(f"No version of {name} is active; `radnode models activate {name} VERSION`.")
            if stands is not None:
                return self.folder / name / str(stands.active)
        version = highest(self.folder, name)
        if version is None:
            raise NotFoundError(f"There is no model {name!r} in the models folder.")
        return self.folder / name / version

    def shadow(self, name: str) -> Path | None:
        """Return the folder of the version that runs beside the active one, if one does.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        if self._engine is None:
            return None
        with reading(self._engine) as tx:
            stands = standing(tx, name)
        return None if stands is None or stands.shadow is None else self.folder / name / stands.shadow

    def newest_change(self) -> int:
        """Return the number of the last change of any model.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        if self._engine is None:
            return 0
        with reading(self._engine) as tx:
            return newest_change(tx)


def _order(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for sorting."""
    return tuple(int(part) for part in version.split("."))
