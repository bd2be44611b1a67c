"""The configuration file: found, read, overridden by `RADNODE_SECTION__KEY` variables, explained where it is wrong.

An unknown key is an error that names the nearest valid one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from radnode.errors import ConfigError
from radnode.settings import Settings


def find_config(explicit: Path | None) -> Path:
    """Return the configuration file to use: `-c`, `$RADNODE_CONFIG`, `./radnode.toml`, `var/radnode.toml`.

    Raises:
        ConfigError: none of them exists.
    """
    named = explicit or (Path(os.environ["RADNODE_CONFIG"]) if os.environ.get("RADNODE_CONFIG") else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"There is no configuration file {named}; make one with `radnode init`.")
        return named
    for candidate in (Path("radnode.toml"), Path("var/radnode.toml")):
        if candidate.is_file():
            return candidate
    raise ConfigError("No radnode.toml here or in var/; make one with `radnode init`, or name one with -c.")


def load_settings(path: Path) -> Settings:
    """Read one TOML file and the environment.

    Raises:
        ConfigError: the file is not TOML, has an unknown key, or a value out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    _check_environment()
    try:
        settings = Settings(**document)
    except SettingsError as error:
        raise ConfigError("A RADNODE_ variable that stands for a whole section or list must be JSON.") from error
    except ValidationError as error:
        raise ConfigError(f"{_origin(error, path)}: {_explain(error)}") from error
    return settings.model_copy(update={"data_dir": (path.resolve().parent / settings.data_dir).resolve()})


def _check_environment() -> None:
    """Refuse a RADNODE_SECTION__KEY whose section is none; of the keys in a section the model takes care."""
    for name in os.environ:
        prefix, _, rest = name.upper().partition("_")
        section, override, _ = rest.lower().partition("__")
        if prefix == "RADNODE" and override and section not in Settings.model_fields:
            raise ConfigError(f"{name}: unknown key {section!r}{_nearest((section,))}")


def _origin(error: ValidationError, path: Path) -> str:
    """Return where the first thing that is wrong stands: the variable that overrides the file, or the file."""
    variable = "RADNODE_" + "__".join(str(part) for part in error.errors()[0]["loc"]).upper()
    return next((name for name in os.environ if name.upper() == variable), str(path))


def _explain(error: ValidationError) -> str:
    """Return one sentence for the first thing that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}{_nearest(first['loc'])}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where or 'configuration'}: {message}."


def _nearest(location: tuple[int | str, ...]) -> str:
    """End a sentence with the valid key nearest to the unknown one at `location`."""
    fields: Any = Settings.model_fields
    for part in location[:-1]:
        if isinstance(part, str) and part in fields:
            fields = _fields_of(fields[part].annotation)
    close = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.0)
    return f"; did you mean {'.'.join([*map(str, location[:-1]), close[0]])!r}?" if close else "."


def _fields_of(annotation: Any) -> dict[str, Any]:
    """Return the fields of a section, or of the items of a list of sections."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return dict(candidate.model_fields)
    return {}
