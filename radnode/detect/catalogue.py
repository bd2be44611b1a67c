"""Which model packages a models folder holds, and which version of each is active. Imports without torch."""

from __future__ import annotations

import re
from pathlib import Path

from radnode.detect.package import MANIFEST
from radnode.errors import NotFoundError

ACTIVE = "active"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}")


def installed(folder: Path) -> list[tuple[str, str, Path]]:
    """Return (name, version, path) of each package in a models folder, by name and rising version.

    Nothing is verified: that is `load_package`'s work.
    """
    found = [
        (path.parent.parent.name, path.parent.name, path.parent)
        for path in folder.glob(f"*/*/{MANIFEST}")
        if _NAME.fullmatch(path.parent.parent.name) and _VERSION.fullmatch(path.parent.name)
    ]
    return sorted(found, key=lambda item: (item[0], _order(item[1])))


def active(folder: Path, name: str) -> Path:
    """Return the folder of the active version: the one `<name>/active` names, else the highest.

    Raises:
        NotFoundError: no version is installed, or `active` names one that is not.
    """
    versions = {version: path for other, version, path in installed(folder) if other == name}
    chosen = folder / name / ACTIVE
    if name in {other for other, _, _ in installed(folder)} and chosen.is_file():
        wanted = chosen.read_text(encoding="utf-8").strip()
        if wanted not in versions:
            raise NotFoundError(f"The active version of {name} is {wanted!r}, which is not installed.")
        return versions[wanted]
    if not versions:
        raise NotFoundError(f"There is no model {name!r} in the models folder.")
    return versions[max(versions, key=_order)]


def _order(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for sorting."""
    return tuple(int(part) for part in version.split("."))
