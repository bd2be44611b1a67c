"""Settings: what is wrong is said in one sentence that names the key, and nothing unknown passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from radnode.configuration import find_config, load_settings
from radnode.errors import ConfigError
from radnode.settings import Settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RADNODE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


def load(folder: Path, text: str) -> Settings:
    file = folder / "radnode.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dat_dir = 'x'", "unknown key 'dat_dir'; did you mean 'data_dir'?"),
        ("[node]\nae_titel = 'X'", "unknown key 'node.ae_titel'; did you mean 'node.ae_title'?"),
        ("[nodes]\nport = 1", "unknown key 'nodes'; did you mean 'node'?"),
        (
            "[[peers]]\nae_title = 'X'\nadresses = []",
            "unknown key 'peers.0.adresses'; did you mean 'peers.0.addresses'?",
        ),
        ("[[rules]]\ndetct = []", "unknown key 'rules.0.detct'; did you mean 'rules.0.detect'?"),
        ("[node]\nport = 70000", "node.port"),
        ("[node]\nport = 'x'", "node.port"),
        ("[node]\nae_title = 'TOO LONG A TITLE FOR ANY'", "has 24 characters; an AE title has 1 to 16"),
        ("[node]\nae_title = ''", "node.ae_title"),
        ("[node]\nae_title = '  '", "node.ae_title"),
        ("[node]\nae_title = 'A\\B'", "node.ae_title"),
        ('[node]\nae_title = "A\\r\\nB"', "node.ae_title"),
        ("[node]\nae_title = '\u00c4'", "node.ae_title"),
        ("[node]\nhandshake_seconds = 0", "node.handshake_seconds"),
        ("[[peers]]\nae_title = 'X'\ncertificate_sha256 = 'abc'", "64 hex digits"),
        ("[[peers]]\nae_title = 'X'\nmay = ['shout']", "peers.0.may.0"),
        ("[[peers]]\nae_title = 'X'\n[[peers]]\nae_title = ' X'", "the peer 'X' is listed twice"),
        ("[[rules]]\ndeliver = ['pacs']", "delivers to 'pacs', but no"),
        (2 * "[[destinations]]\nname = 'p'\nae_title = 'P'\nhost = 'h'\nport = 1\n", "'p' is listed twice"),
        ("[[destinations]]\nname = '../x'\nae_title = 'P'\nhost = 'h'\nport = 1\n", "destinations.0.name"),
        ("[audit]\non_failure = 'spool'", "audit.on_failure"),
        ("data_dir = ", "is not valid TOML"),
        ("[report]\ncontent_qualification = 'GOOD'", "report.content_qualification"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_the_key(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_file_that_is_no_text_or_not_there_is_config_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "x", tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_settings(path)


def test_environment_overrides_one_key_and_leaves_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADNODE_NODE__PORT", "11113")
    monkeypatch.setenv("RADNODE_DETECT__TIMEOUT_SECONDS", "5.5")
    settings = load(tmp_path, "[node]\nport = 1\nae_title = 'MINE'")
    assert (settings.node.port, settings.node.ae_title, settings.detect.timeout_seconds) == (11113, "MINE", 5.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RADNODE_NODE__PROT", "1"), ("RADNODE_NODE__PORT", "x"), ("RADNODE_PEERS", "["), ("RADNODE_NODE", "{")],
)
def test_environment_that_is_wrong_is_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError):
        load(tmp_path, "")


def test_data_dir_is_relative_to_the_file_and_paths_to_data_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir("/")
    settings = load(tmp_path / "etc", "data_dir = '../data'\n[tls]\nkey = '/abs/key'")
    assert settings.data_dir == tmp_path / "data"
    assert settings.path(settings.tls.certificate) == tmp_path / "data/pki/server.crt"
    assert settings.path(settings.tls.key) == Path("/abs/key")


def test_fingerprint_of_openssl_is_read(tmp_path: Path) -> None:
    digits = ":".join(["AB"] * 32)
    settings = load(tmp_path, f"[[peers]]\nae_title = 'X'\ncertificate_sha256 = '{digits}'")
    assert settings.peers[0].certificate_sha256 == "ab" * 32


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    for section in (settings, settings.node):
        with pytest.raises(Exception, match="frozen"):
            section.port = 1


def test_configuration_is_looked_for_where_the_manual_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="radnode init"):
        find_config(None)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/radnode.toml").touch()
    assert find_config(None) == Path("var/radnode.toml")
    (tmp_path / "radnode.toml").touch()
    assert find_config(None) == Path("radnode.toml")
    (tmp_path / "other.toml").touch()
    monkeypatch.setenv("RADNODE_CONFIG", str(tmp_path / "other.toml"))
    assert find_config(None) == tmp_path / "other.toml"
    assert find_config(Path("radnode.toml")) == Path("radnode.toml")
    for missing in ("nowhere.toml", "var"):
        with pytest.raises(ConfigError):
            find_config(Path(missing))


def test_every_section_is_frozen_and_forbids_unknown_keys() -> None:
    def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
        found: list[type[BaseModel]] = []
        for field in model.model_fields.values():
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    found += [kind, *sections(kind)]
        return found

    assert len(sections(Settings)) >= 9
    for section in [Settings, *sections(Settings)]:
        assert section.model_config.get("frozen")
        assert section.model_config.get("extra") == "forbid"
