"""`radnode init`: private, complete, documented, and never over something that is there."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from support.rooms import modes

from radnode.configuration import load_settings
from radnode.errors import ConfigError
from radnode.initialise import fill, initialise
from radnode.node import Node
from radnode.settings import DestinationSettings, Settings

TEMPLATE = (Path(__file__).parents[2] / "radnode/templates/radnode.toml").read_text(encoding="utf-8")
FINGERPRINTS = {"modality": "11" * 32, "server": "22" * 32, "admin": "33" * 32}
PACS = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=4242)
SECTIONS = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
LISTS = {"peers": "PeerSettings", "destinations": "DestinationSettings", "rules": "RuleSettings"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = os.umask(0)
    try:
        return initialise(tmp_path_factory.mktemp("init") / "node", 2762, PACS).parent
    finally:
        os.umask(before)


def test_everything_is_private_whatever_the_umask(made: Path) -> None:
    found = [made, *made.rglob("*")]
    assert modes(path for path in found if path.is_dir()) == {0o700}
    assert modes(path for path in found if path.is_file()) == {0o600}


def test_node_that_was_made_opens_with_every_key(made: Path) -> None:
    node = Node(load_settings(made / "radnode.toml"))
    assert node.vault and node.audit and node.pseudonyms and node.rules and node.intake and node.results
    node.settle_trail()
    assert {path.name for path in (made / "keys").iterdir()} == {
        *("kek-0001.key", "pseudonym.key", "audit.key", "audit-sign.key", "audit-sign.pub")
    }
    node.engine.dispose()


def test_two_nodes_share_no_key(made: Path, tmp_path: Path) -> None:
    other = initialise(tmp_path / "other", 2762, None).parent
    for path in [*(made / "keys").iterdir(), *(made / "pki").glob("*.key")]:
        assert path.read_bytes() != (other / path.relative_to(made)).read_bytes()


@pytest.mark.parametrize("name", ["radnode.toml", "keys", "pki", "models", "node.db", "objects", "audit"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        initialise(tmp_path, 2762, None)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folder_that_cannot_be_made_is_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError):
            initialise(folder, 2762, None)


def test_names_that_mean_something_in_toml_stay_names(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\c $d'
    pacs = DestinationSettings(name="pacs", ae_title='P"ACS', host='h"\ntls = false\n#', port=1)
    settings = load_settings(initialise(folder, 104, pacs))
    assert settings.data_dir == folder
    assert settings.destinations == (pacs,)
    assert settings.node.port == 104


def test_node_that_was_copied_works_on_its_copy(tmp_path: Path) -> None:
    folder = initialise(tmp_path / "node", 2762, None).parent
    shutil.copytree(folder, tmp_path / "copy")
    assert load_settings(tmp_path / "copy/radnode.toml").data_dir == tmp_path / "copy"
    folder.rename(tmp_path / "moved")
    assert load_settings(tmp_path / "moved/radnode.toml").data_dir == tmp_path / "moved"


def rendered() -> dict[str, Any]:
    return tomllib.loads(fill(2762, None, FINGERPRINTS))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_value_in_the_template_is_the_default(section: str) -> None:
    defaults = SECTIONS[section]().model_dump(mode="json")
    for key, value in rendered()[section].items():
        assert value == defaults[key], f"{section}.{key}"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_stands_in_the_template(section: str) -> None:
    text = TEMPLATE.split(f"\n[{section}]\n")[1].split("\n[")[0]
    keys = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    assert keys == set(SECTIONS[section].model_fields)


def test_every_setting_of_the_lists_stands_in_the_template_and_no_section_is_missing() -> None:
    from radnode import settings  # noqa: PLC0415

    text = fill(2762, None, FINGERPRINTS)
    for section, name in LISTS.items():
        block = text.split(f"[[{section}]]\n", 1)[1].split("\n\n", 1)[0]
        keys = set(re.findall(r"^(?:# )?(\w+) = ", block, re.MULTILINE))
        assert keys == set(getattr(settings, name).model_fields), section
    assert set(Settings.model_fields) == {"data_dir", *SECTIONS, *LISTS}
    assert {line.strip("[]# ") for line in re.findall(r"^(?:# )?\[+\w+\]+", text, re.MULTILINE)} == {*SECTIONS, *LISTS}


def test_rendered_template_loads_with_and_without_destination(tmp_path: Path) -> None:
    for pacs in (None, PACS, PACS.model_copy(update={"tls": False})):
        (tmp_path / "radnode.toml").write_text(fill(2762, pacs, FINGERPRINTS))
        settings = load_settings(tmp_path / "radnode.toml")
        assert settings.destinations == (() if pacs is None else (pacs,))
        assert [peer.ae_title for peer in settings.peers] == ["MODALITY1", "RADNODE", "ADMIN"]
