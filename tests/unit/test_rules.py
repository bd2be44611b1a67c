"""Rules: every rule that fits counts, a missing element is empty, and nothing matches by accident."""

from __future__ import annotations

import pytest

from radnode.errors import ConfigError
from radnode.rules import Decision, Rules
from radnode.settings import RuleSettings


def rule(match: dict[str, object], *detect: str, deliver: tuple[str, ...] = ()) -> RuleSettings:
    return RuleSettings(match=match, detect=detect, deliver=deliver)


def fits(match: dict[str, object], **elements: str) -> bool:
    return Rules([rule(match, "model")]).decide(elements).detect == ("model",)


@pytest.mark.parametrize(
    ("match", "elements", "expected"),
    [
        ({}, {}, True),
        ({"Modality": "CR"}, {"Modality": "CR"}, True),
        ({"Modality": "CR"}, {"Modality": "CRX"}, False),
        ({"Modality": "CR"}, {}, False),
        ({"Modality": ["CR", "DX"]}, {"Modality": "DX"}, True),
        ({"Modality": ["CR", "DX"]}, {"Modality": "CRDX"}, False),
        ({"Modality": ""}, {}, True),
        ({"Modality": "C."}, {"Modality": "CR"}, False),
        ({"StudyDescription": "re:.*THORAX.*"}, {"StudyDescription": "XR THORAX\nPA"}, True),
        ({"StudyDescription": "re:THORAX"}, {"StudyDescription": "XR THORAX"}, False),
        ({"StudyDescription": ["re:(?i).*thorax", "re:(?i)chest.*"]}, {"StudyDescription": "Chest PA"}, True),
        ({"StudyDescription": "re:A|B"}, {"StudyDescription": "AX"}, False),
        ({"CallingAE": "ROOM3"}, {"CallingAE": "ROOM3"}, True),
        ({"Modality": "CR", "CallingAE": "ROOM3"}, {"Modality": "CR", "CallingAE": "ROOM4"}, False),
        ({"Modality": []}, {"Modality": "CR"}, False),
    ],
)
def test_value_fits(match: dict[str, object], elements: dict[str, str], expected: bool) -> None:
    assert fits(match, **elements) is expected


def test_every_rule_that_fits_counts_in_the_order_of_the_file_without_repeats() -> None:
    rules = Rules(
        [
            rule({}, "b", "a", deliver=("pacs",)),
            rule({"Modality": "MR"}, "never", deliver=("never",)),
            rule({"Modality": "CR"}, "a", "c", deliver=("archive", "pacs")),
        ]
    )
    assert rules.decide({"Modality": "CR"}) == Decision(("b", "a", "c"), ("pacs", "archive"))
    assert Rules([]).decide({}) == Decision((), ())


def test_keywords_are_those_of_all_rules() -> None:
    rules = Rules([rule({"Modality": "CR"}), rule({"CallingAE": "X", "BodyPartExamined": "CHEST"})])
    assert rules.keywords() == {"Modality", "CallingAE", "BodyPartExamined"}


@pytest.mark.parametrize("match", [{"Modalty": "CR"}, {"modality": "CR"}, {"": "x"}, {"Modality": "re:("}])
def test_rule_that_cannot_mean_anything_is_config_error(match: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Rules([rule(match)])
