"""config/ shows what `radnode init` writes, and rules that load."""

from __future__ import annotations

from pathlib import Path

from radnode.configuration import load_settings
from radnode.initialise import fill
from radnode.rules import Rules
from radnode.settings import DestinationSettings

CONFIG = Path(__file__).parents[2] / "config"
PACS = DestinationSettings(name="pacs", ae_title="PACS", host="pacs.hospital.example", port=2762)
FINGERPRINTS = {"modality": "11" * 32, "server": "22" * 32, "admin": "33" * 32}


def test_commented_default_is_what_init_writes() -> None:
    assert (CONFIG / "radnode.toml").read_text() == fill(2762, PACS, FINGERPRINTS)


def test_commented_default_loads() -> None:
    assert load_settings(CONFIG / "radnode.toml").destinations == (PACS,)


def test_example_rules_decide_as_their_comments_say() -> None:
    rules = Rules(load_settings(CONFIG / "rules.toml").rules)
    film = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "CallingAE": "ROOM3"}
    assert rules.decide(film).detect == ("cxr-opacity",)
    assert rules.decide(film).deliver == ("pacs",)
    assert rules.decide(film | {"CallingAE": "TEST1"}).deliver == ("pacs", "sandbox")
    assert rules.decide(film | {"StudyDescription": "RESEARCH trial 7"}).deliver == ("pacs", "sandbox")
    assert rules.decide({"Modality": "MR"}).detect == ()
